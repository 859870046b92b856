# shellcheck shell=bash
# Tools that later tests need. Each is linked into one folder, so that a test needs one PATH entry.

TOOLS="helm3 helm4 kubectl glua kwok kubeconform promtool chromium"

tools() {
    local name wanted="$*"
    [ "${wanted:-all}" != all ] || wanted=$TOOLS
    mkdir -p "$CACHE/bin"
    for name in $wanted; do
        case $name in
            helm3)       go_tool helm3 helm "helm.sh/helm/v3/cmd/helm@v$HELM3" ;;
            helm4)       go_tool helm4 helm "helm.sh/helm/v4/cmd/helm@v$HELM4" ;;
            kubectl)     kubectl_tool ;;
            glua)        go_tool glua glua "github.com/yuin/gopher-lua/cmd/glua@v$GLUA" ;;
            kwok)        go_tool kwok kwok "sigs.k8s.io/kwok/cmd/kwok@v$KWOK" ;;
            kubeconform) go_tool kubeconform kubeconform "github.com/yannh/kubeconform/cmd/kubeconform@v$KUBECONFORM" ;;
            promtool)    debian_promtool ;;
            chromium)    debian_chromium ;;
            *)           die "there is no tool '$name'; tools: $TOOLS, all" ;;
        esac
        say "tool $name: $CACHE/bin/$name"
    done
    echo "$CACHE/bin"
}

# go_tool NAME PROGRAM MODULE
go_tool() {
    need_go
    MODULE=$3
    part "$1" "$(key "$3")" "$3, 1-2 minutes on 2 cores" build_tool
    ln -sfn "$PART/bin/$2" "$CACHE/bin/$1"
}
build_tool() { go_install "$1" "$MODULE"; }

# The node's own, where the node is made here; else the user's.
kubectl_tool() {
    if engine_is_ours || ! have kubectl; then
        need_go
        part kubernetes "$(key "$(recipe "$HERE"/node/multicall/*)")" "the node's programs, the longest part" build_kubernetes
        ln -sfn "$PART/bin/kubectl" "$CACHE/bin/kubectl"
    else
        PATH=${PATH//$CACHE\/bin:/}
        ln -sfn "$(type -P kubectl)" "$CACHE/bin/kubectl"
    fi
}

# Debian's prometheus would start a service when installed, so it is unpacked only.
debian_promtool() {
    part promtool "$(key "$SUITE")" "promtool of Debian's prometheus" build_promtool
    ln -sfn "$PART/root/usr/bin/promtool" "$CACHE/bin/promtool"
}
build_promtool() {
    have apt-get || die "promtool comes from Debian's prometheus package, and this machine has no apt-get"
    apt-get update -qq || true
    (cd "$1" && apt-get download -qq prometheus && dpkg-deb -x prometheus_*.deb root && rm prometheus_*.deb)
}

debian_chromium() {
    # Not the link that this makes.
    PATH=${PATH//$CACHE\/bin:/}
    if ! have chromium; then
        [ "$(id -u)" = 0 ] || die "chromium is not installed; install it, or run this as root"
        step "install chromium" install_chromium
    fi
    ln -sfn "$(type -P chromium)" "$CACHE/bin/chromium"
}
install_chromium() { apt-get update -qq; DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; }
