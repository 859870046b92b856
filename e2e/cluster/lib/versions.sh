# shellcheck shell=bash disable=SC2034 # read by the other files
# The versions of everything the lab makes. Changing one rebuilds the parts that use it and no others.
KUBERNETES=1.36.2   # also in node/multicall/go.mod
KIND=0.33.0
HELM3=3.21.4
HELM4=4.2.4
KWOK=0.8.0
GLUA=1.1.1         # the Lua that Argo CD runs
KUBECONFORM=0.8.0
SUITE=bookworm      # not trixie: bookworm's systemd still takes cgroup v1
