module securelink.dev/e2e/cluster/node/pause

go 1.26
