module securelink.dev/e2e/cluster/node/runc

go 1.26
