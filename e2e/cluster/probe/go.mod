module securelink.dev/e2e/cluster/probe

go 1.26
