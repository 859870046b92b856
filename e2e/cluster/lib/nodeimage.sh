# shellcheck shell=bash
# The node image: kind's own where it can be pulled, else one made of Debian packages and Go modules by the steps of
# kind's Dockerfile. kind's files are read from its Go module; no copy of them is kept here.

NODE_PACKAGES=systemd,systemd-sysv,dbus,containerd,runc,containernetworking-plugins,conntrack,iptables,nftables,ipset,iproute2,ethtool,socat,kmod,ca-certificates,curl,jq,procps,rsync,hostname,gawk,gettext-base

# find_kind: the user's kind, or one built from its module.
find_kind() {
    have kind && return 0
    need_go
    part kind "$(key "$KIND")" "kind is not installed" build_kind
    export PATH="$PART/bin:$PATH"
}
build_kind() { go_install "$1" "sigs.k8s.io/kind@v$KIND"; }

# node_image: sets IMAGE to the image for our own nodes, or to nothing where kind's default is used.
node_image() {
    local wanted
    IMAGE=""
    wanted="securelink-lab/node:v$KUBERNETES-$(node_key)"
    if docker image inspect "$wanted" >/dev/null 2>&1; then IMAGE=$wanted; return 0; fi
    local default
    default=$(grep -aoE 'kindest/node:v[0-9.]+@sha256:[0-9a-f]{64}' "$(command -v kind)" | head -n1 || true)
    if [ -n "$default" ]; then
        if docker image inspect "$default" >/dev/null 2>&1; then return 0; fi
        if step "pull ${default%@*}" timeout 600 docker pull -q "$default" 2>/dev/null; then return 0; fi
    fi
    say "kind's node image cannot be pulled here: making one from Debian packages and Go modules"
    make_node_image "$wanted"
    IMAGE=$wanted
}

node_key() {
    key "$KUBERNETES" "$KIND" "$SUITE" "$(lacks_sys_resource && echo wrapper)" \
        "$(declare -f assemble kind_files own_files kube_images small_image with_libraries build_base build_kubernetes)" \
        "$NODE_PACKAGES" "$(recipe "$HERE"/node/*/*)"
}

make_node_image() {
    [ "$(id -u)" = 0 ] || die "the node image has to be made here, which needs root (debootstrap); run the lab as root, or where the image can be pulled"
    need_go
    have debootstrap || engine_part
    [ ! -d "$CACHE/parts/engine-$(engine_key)" ] || use_engine_part "$CACHE/parts/engine-$(engine_key)"
    # The base waits for disk and network while the programs use the processors.
    base_part &
    local base=$!
    programs_part
    part coredns "$(key "$(recipe "$HERE"/node/coredns/*)")" "CoreDNS" build_coredns
    DNS=$PART
    wait $base
    base_part
    BASE=$PART
    part small "$(key "$(recipe "$HERE"/node/runc/* "$HERE"/node/pause/*)")" "the runc wrapper and the pause program" build_small
    SMALL=$PART
    step "assemble the node image" assemble "$1"
}

programs_key() { key "$(recipe "$HERE"/node/multicall/*)"; }
programs_part() {
    part kubernetes "$(programs_key)" "the node's programs, the longest part" build_kubernetes
    PROGRAMS=$PART
}

# programs: prints the folder of the node's programs. Where they are made already, it waits for no other command.
programs() {
    local made
    made="$CACHE/parts/kubernetes-$(programs_key)"
    if [ ! -e "$made/.complete" ]; then
        alone lock
        need_go
        programs_part
    fi
    echo "$made/bin"
}

base_part() { part base "$(key "$SUITE" "$NODE_PACKAGES")" "the node's Debian" build_base; }
build_base() {
    nice debootstrap --variant=minbase --include="$NODE_PACKAGES" "$SUITE" "$1/root" ${SECURELINK_LAB_MIRROR:+"$SECURELINK_LAB_MIRROR"}
    rm -rf "$1"/root/var/cache/apt/archives/*.deb "$1"/root/var/lib/apt/lists/*
    tar -C "$1/root" --numeric-owner -cf "$1/root.tar" .
    rm -rf "$1/root"
}

build_kubernetes() {
    local version=k8s.io/component-base/version
    go_build "$1" "$HERE/node/multicall" node "-X $version.gitVersion=v$KUBERNETES -X $version.gitMajor=1 -X $version.gitMinor=$(cut -d. -f2 <<<"$KUBERNETES")"
    local name
    for name in etcd kubeadm kubectl kubelet kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do
        ln -s node "$1/bin/$name"
    done
}

build_coredns() { go_build "$1" "$HERE/node/coredns" coredns; }

build_small() {
    go_build "$1" "$HERE/node/runc" runc
    go_build "$1" "$HERE/node/pause" pause
}

# assemble IMAGE
assemble() {
    local work files
    work=$(mktemp -d "$CACHE/assemble.XXXXXX")
    # shellcheck disable=SC2064 # the folder of now
    trap "rm -rf '$work'" EXIT
    mkdir "$work/root"
    tar -C "$work/root" -xpf "$BASE/root.tar"
    files=$(cd "$work" && go mod download -json "sigs.k8s.io/kind@v$KIND" | sed -n 's/^\t"Dir": "\(.*\)",$/\1/p')/images/base/files
    kind_files "$work/root" "$files"
    own_files "$work/root"
    tar -C "$work/root" --numeric-owner -c . |
        docker import --change 'ENV container=docker' - securelink-lab/node:base >/dev/null
    kube_images "$work"
    local build=securelink-lab-build
    docker rm -f -v $build >/dev/null 2>&1 || true
    docker run -d --name $build --network none --entrypoint sleep --security-opt seccomp=unconfined securelink-lab/node:base infinity
    docker exec -d $build containerd
    until docker exec $build ctr version >/dev/null 2>&1; do sleep 0.2; done
    docker exec -i $build ctr -n k8s.io images import --all-platforms --no-unpack --digests - <"$work/images.tar"
    docker exec $build ctr -n k8s.io images list -q
    docker exec $build pkill containerd
    docker commit --change 'ENTRYPOINT ["/usr/local/bin/entrypoint", "/sbin/init"]' $build "$1"
    docker rm -f -v $build
    docker rmi securelink-lab/node:base >/dev/null || true
    docker images --format '{{.Repository}}:{{.Tag}}' | { grep "^securelink-lab/node:" | grep -vF "$1" || true; } | xargs -r docker rmi || true
}

# What kind's Dockerfile does after it installs packages.
kind_files() {
    local root=$1 files=$2 units
    cp -r --no-preserve=mode,ownership "$files"/usr "$files"/etc "$files"/kind "$root/"
    chmod 755 "$root"/usr/local/bin/* "$root"/kind/bin/*
    units=$root/lib/systemd/system
    rm -f "$units"/sysinit.target.wants/systemd-tmpfiles-setup.service "$units"/multi-user.target.wants/* \
        "$root"/etc/systemd/system/*.wants/* "$units"/local-fs.target.wants/* "$units"/sockets.target.wants/*udev* \
        "$units"/sockets.target.wants/*initctl* "$units"/basic.target.wants/*
    echo "ReadKMsg=no" >>"$root/etc/systemd/journald.conf"
    chroot "$root" systemctl enable kubelet.service containerd.service undo-mount-hacks.service
    chroot "$root" systemctl mask systemd-binfmt.service
    mkdir -p "$root/etc/kubernetes/manifests"
    # containerd 1.6 of Debian lists no hook by itself.
    chroot "$root" ctr oci spec |
        jq '.hooks.createContainer += [{"path": "/kind/bin/mount-product-files.sh"}] | del(.process.rlimits)' >"$root/etc/containerd/cri-base.json"
    echo "v$KUBERNETES" >"$root/kind/version"
}

# Where our node differs from kind's: Debian's containerd and CNI plugins, and one more wrapper.
own_files() {
    local root=$1 name
    for name in containerd ctr containerd-shim-runc-v2; do ln -sf "/usr/bin/$name" "$root/usr/local/bin/$name"; done
    mkdir -p "$root/opt/cni" "$root/etc/cni/net.d" "$root/etc/systemd/system/containerd.service.d" "$root/usr/local/sbin"
    ln -sfn /usr/lib/cni "$root/opt/cni/bin"
    cp "$PROGRAMS/bin/node" "$root/usr/bin/node-programs"
    for name in kubeadm kubectl kubelet; do ln -s node-programs "$root/usr/bin/$name"; done
    if lacks_sys_resource; then
        cp "$SMALL/bin/runc" "$root/usr/local/sbin/runc"
        sed -i 's/restrict_oom_score_adj = false/restrict_oom_score_adj = true/' "$root/etc/containerd/config.toml"
        printf '[Service]\nLimitNPROC=\nLimitCORE=\nLimitNOFILE=\nOOMScoreAdjust=0\n' >"$root/etc/systemd/system/containerd.service.d/10-lab.conf"
    fi
    # A machine whose own engine forwards nothing hands that on to the node.
    echo 'net.ipv4.ip_forward=1' >"$root/etc/sysctl.d/20-lab.conf"
    # ptp, not bridge: only routed traffic between pods passes the forward hook, where policies are enforced.
    cat >"$root/etc/cni/net.d/10-lab.conflist" <<'CNI'
{"cniVersion": "0.4.0", "name": "lab", "plugins": [
  {"type": "ptp", "ipMasq": true, "mtu": 1500,
   "ipam": {"type": "host-local", "dataDir": "/run/cni-ipam", "ranges": [[{"subnet": "10.244.0.0/24"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
  {"type": "portmap", "capabilities": {"portMappings": true}}
]}
CNI
}

# kube_images WORK: one archive with every image kubeadm asks for; all but pause and CoreDNS are one image.
kube_images() {
    local work=$1 name image tags=()
    mkdir -p "$work/kube/usr/local/bin" "$work/small"
    cp "$PROGRAMS/bin/node" "$work/kube/usr/local/bin/node"
    for name in etcd kube-apiserver kube-controller-manager kube-proxy kube-scheduler; do ln -s node "$work/kube/usr/local/bin/$name"; done
    with_libraries "$work/root" "$work/kube" /usr/sbin/nft /usr/sbin/xtables-nft-multi /usr/sbin/conntrack
    for name in iptables iptables-save iptables-restore ip6tables ip6tables-save ip6tables-restore; do
        ln -s xtables-nft-multi "$work/kube/usr/sbin/$name"
    done
    name=usr/lib/$(uname -m)-linux-gnu
    mkdir -p "$work/kube/$name"
    cp -r "$work/root/$name/xtables" "$work/kube/$name/"
    # By these names kube-proxy knows again what it wrote; by numbers it would take every Service for a left one, and remove it.
    mkdir "$work/kube/etc"
    printf '%s\n' 'tcp 6 TCP' 'udp 17 UDP' 'sctp 132 SCTP' >"$work/kube/etc/protocols"
    tar -C "$work/kube" --numeric-owner --owner=0 --group=0 -c . | docker import --change 'ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin' - securelink-lab/kube >/dev/null
    cp "$SMALL/bin/pause" "$DNS/bin/coredns" "$work/small/"
    small_image "$work/small" pause
    small_image "$work/small" coredns
    for image in $("$PROGRAMS/bin/kubeadm" config images list --kubernetes-version "v$KUBERNETES"); do
        case $image in
            */pause:*) continue ;;
            */coredns:*) docker tag securelink-lab/coredns "$image" ;;
            *) docker tag securelink-lab/kube "$image" ;;
        esac
        tags+=("$image")
    done
    image=$(sed -n 's/.*sandbox_image = "\(.*\)".*/\1/p' "$work/root/etc/containerd/config.toml")
    docker tag securelink-lab/pause "$image"
    tags+=("$image")
    docker save -o "$work/images.tar" "${tags[@]}"
    docker rmi "${tags[@]}" securelink-lab/{kube,pause,coredns} >/dev/null
}

# small_image FOLDER NAME: root, because CoreDNS binds port 53.
small_image() {
    printf 'FROM scratch\nCOPY %s /%s\nENTRYPOINT ["/%s"]\n' "$2" "$2" "$2" >"$1/Dockerfile"
    docker build -q -t "securelink-lab/$2" "$1" >/dev/null
}

# with_libraries FROM TO FILE…: copies programs and the libraries they load, out of one root into another.
with_libraries() {
    local from=$1 to=$2 file library; shift 2
    for file in "$@"; do
        for library in "$file" $(chroot "$from" ldd "$file" | grep -o '/[^ ]*'); do
            # /lib is a link to /usr/lib in the root; images need both names to work.
            mkdir -p "$to$(dirname "$library")"
            cp -Lf "$from$library" "$to$library"
        done
    done
}
