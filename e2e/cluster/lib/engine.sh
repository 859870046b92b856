# shellcheck shell=bash
# The container engine: the one that answers, or one of our own. An engine that is not ours is never configured,
# restarted or stopped.
#
# Our own runs in a pid and a mount namespace: when its first process ends, everything in it ends and every mount
# goes with it, so a crash leaves nothing to hunt for. It writes no firewall rule (--iptables=false): nodes reach
# each other on one bridge, the host reaches them through docker-proxy, and nothing needs the world.

CGROUP=securelink-lab
NETWORK=securelink-lab
BRIDGE=slab0
ENGINE_PACKAGES="docker.io containerd runc iptables debootstrap"

engine_is_ours() { [ -e "$STATE/engine/pid" ]; }

engine_answers() { timeout 10 docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }

lacks_sys_resource() {
    local bounding
    [ -r /proc/self/status ] || return 1
    bounding=$(sed -n 's/^CapBnd:\t//p' /proc/self/status)
    [ $(((0x$bounding >> 24) & 1)) -eq 0 ]
}

# use_engine: points docker and kind at the lab's engine if one is running, else at the user's.
use_engine() {
    export KIND_EXPERIMENTAL_DOCKER_NETWORK=$NETWORK KIND_EXPERIMENTAL_PROVIDER=docker
    if engine_is_ours; then
        use_engine_part "$(cat "$STATE/engine/part")"
        export DOCKER_HOST="unix://$RUN/docker.sock" DOCKER_BUILDKIT=0
        unset DOCKER_CONTEXT
    fi
}

# The packages are unpacked, not installed: an installed docker.io would start a service, and may be another's.
use_engine_part() {
    local root="$1/root" libraries
    libraries="$root/usr/lib/$(uname -m)-linux-gnu"
    export PATH="$1/bin:$root/usr/sbin:$root/usr/bin:$PATH"
    export LD_LIBRARY_PATH="$libraries" XTABLES_LIBDIR="$libraries/xtables" DEBOOTSTRAP_DIR="$root/usr/share/debootstrap"
}

build_engine() {
    have apt-get || die "this machine has neither Docker nor apt-get; install and start Docker"
    mkdir -p "$1/archives/partial" "$1/root" "$1/bin"
    apt-get update -qq
    # shellcheck disable=SC2086 # a list of packages
    apt-get -o Dir::Cache::archives="$1/archives" -o DPkg::Lock::Timeout=300 -qq -y \
        --no-install-recommends --reinstall --download-only install $ENGINE_PACKAGES
    local package
    for package in "$1"/archives/*.deb; do dpkg-deb -x "$package" "$1/root"; done
    rm -rf "$1/archives"
    # A package's own script would make these links; without them Docker's DNS does not answer in containers.
    for package in iptables ip6tables; do ln -s ../root/usr/sbin/xtables-nft-multi "$1/bin/$package"; done
    if lacks_sys_resource; then
        go_build "$1" "$HERE/node/runc" lab-runc "-X main.runc=$CACHE/parts/engine-$(engine_key)/root/usr/sbin/runc"
    fi
}

engine_key() {
    key "$(declare -f build_engine)" "$ENGINE_PACKAGES" "$(recipe "$HERE/node/runc/main.go")" "$SUITE" "$CACHE" \
        "$(lacks_sys_resource && echo wrapper)"
}

engine_part() {
    [ "$(id -u)" = 0 ] || die "no Docker answers and this user is not root; start Docker, or run the lab as root"
    need_go
    part engine "$(engine_key)" "no Docker daemon answers; Debian's is unpacked under the cache" build_engine
}

# engine_up: an engine that answers; ours is started only when none does.
engine_up() {
    local owner
    use_engine
    if engine_answers; then
        engine_is_ours || say "engine: the Docker that answers here, as it is"
        return 0
    fi
    if owner=$(cat "$RUN/state" 2>/dev/null) && [ "$owner" != "$STATE" ] && STATE=$owner engine_pid >/dev/null; then
        die "another lab runs on this machine, with its state in $owner; use it with SECURELINK_LAB_STATE=$owner, or end it first"
    fi
    if engine_is_ours || [ -n "$(leftovers_own)" ]; then
        say "engine: cleaning up after a run that did not end with 'lab down'"
        engine_kill
    fi
    engine_part
    start_engine "$PART"
}

start_engine() {
    local part=$1 runtime=()
    mkdir -p "$RUN" "$STATE/engine" "$STATE/logs" "$CACHE/docker"
    if [ -x "$part/bin/lab-runc" ]; then
        runtime=(--add-runtime "lab=$part/bin/lab-runc" --default-runtime lab)
        say "engine: without CAP_SYS_RESOURCE on this machine, runc is wrapped"
    fi
    cat >"$STATE/engine/init" <<INIT
# The first process of the engine's namespaces: ends the engine in order when told, and reaps orphans.
dockerd --host=unix://$RUN/docker.sock --data-root=$CACHE/docker --exec-root=$RUN/exec --pidfile=$RUN/docker.pid \\
    --bridge=none --iptables=false --ip6tables=false --ip-forward=false --ip-masq=false --oom-score-adjust=0 \\
    --default-address-pool=base=172.31.128.0/17,size=24 --cgroup-parent=/$CGROUP/nodes --storage-driver=overlay2 \\
    --config-file=$STATE/engine/daemon.json ${runtime[*]} &
trap 'kill -TERM \$!' TERM INT
while kill -0 \$! 2>/dev/null; do wait \$!; done
INIT
    echo '{}' >"$STATE/engine/daemon.json"
    echo "$part" >"$STATE/engine/part"
    echo "$STATE" >"$RUN/state"
    rm -f "$RUN/docker.pid" "$RUN/docker.sock"
    (
        use_engine_part "$part"
        join_cgroup
        exec setsid unshare --mount --propagation private --pid --fork --kill-child --mount-proc \
            bash "$STATE/engine/init" </dev/null >"$STATE/logs/engine.log" 2>&1 9>&-
    ) &
    local pid=$!
    # Another process may get the number later: its start time tells them apart.
    echo "$pid $(started_at "$pid")" >"$STATE/engine/pid"
    use_engine
    local limit=$((SECONDS + 60))
    until engine_answers; do
        if ! kill -0 "$pid" 2>/dev/null || [ "$SECONDS" -ge "$limit" ]; then
            tail -n 15 "$STATE/logs/engine.log" >&2
            die "the engine did not start; the whole log: $STATE/logs/engine.log"
        fi
        sleep 0.2
    done
    say "engine: our own Docker, pid $pid, $DOCKER_HOST, log $STATE/logs/engine.log"
    discard_containers
}

# A crash leaves containers in the data root that no cluster can be revived from.
discard_containers() {
    local left
    left=$(docker ps -aq)
    # shellcheck disable=SC2086 # a list of ids
    [ -z "$left" ] || docker rm -f -v $left >/dev/null
    docker volume prune -f >/dev/null
    docker network rm "$NETWORK" >/dev/null 2>&1 || true
}

network_up() {
    docker network inspect "$NETWORK" >/dev/null 2>&1 && return 0
    docker network create --label securelink-lab=1 -o com.docker.network.bridge.name=$BRIDGE "$NETWORK" >/dev/null
}

started_at() { sed 's/^.*) //' "/proc/$1/stat" 2>/dev/null | cut -d' ' -f20; }

engine_pid() {
    local pid began
    read -r pid began <"$STATE/engine/pid" 2>/dev/null || return 1
    [ -n "$began" ] && [ "$(started_at "$pid")" = "$began" ] && echo "$pid"
}

cgroup_folders() { find /sys/fs/cgroup -maxdepth 2 -type d -name "$CGROUP" 2>/dev/null; }

# Everything the engine starts stays in this cgroup, so it can be found whatever happens to its parents.
join_cgroup() {
    local root folder
    for root in /sys/fs/cgroup /sys/fs/cgroup/*; do
        [ -e "$root/cgroup.procs" ] || continue
        [ "$root" = /sys/fs/cgroup ] || [ ! -e /sys/fs/cgroup/cgroup.controllers ] || continue
        folder="$root/$CGROUP"
        mkdir -p "$folder/engine"
        for file in cpuset.cpus cpuset.mems; do
            [ ! -e "$root/$file" ] || [ ! -e "$folder/$file" ] || { cat "$root/$file" >"$folder/$file"; cat "$root/$file" >"$folder/engine/$file"; } 2>/dev/null
        done
        echo "$BASHPID" >"$folder/engine/cgroup.procs"
    done
}

cgroup_processes() {
    local folder
    for folder in $(cgroup_folders); do
        find "$folder" -name cgroup.procs -exec cat {} + 2>/dev/null
    done | sort -un
}

mounts_of_ours() {
    awk -v run="$RUN/" -v data="$CACHE/docker/" 'index($2, run) == 1 || index($2, data) == 1 {print $2}' /proc/self/mounts
}

engine_down() {
    engine_is_ours || return 0
    local pid child
    if pid=$(engine_pid); then
        child=$(cat "/proc/$pid/task/$pid/children" 2>/dev/null || true)
        # shellcheck disable=SC2086 # one pid, or none
        [ -z "$child" ] || kill -TERM $child 2>/dev/null || true
        for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
    fi
    engine_kill
}

# engine_kill: ends what is left of our engine, however it came to be left.
engine_kill() {
    local pid
    if pid=$(engine_pid); then kill -KILL "$pid" 2>/dev/null || true; fi
    for _ in $(seq 50); do
        pid=$(cgroup_processes)
        [ -n "$pid" ] || break
        # shellcheck disable=SC2086 # a list of pids
        kill -KILL $pid 2>/dev/null || true
        sleep 0.1
    done
    mounts_of_ours | sort -r | while read -r pid; do umount -l "$pid" || true; done
    # Orphaned sockets keep a killed node's network namespace alive for minutes, and with it its end of the pair: without
    # the bridge nobody would know these any more.
    if [ -e /sys/class/net/$BRIDGE ]; then
        ip -o link show master $BRIDGE | sed -n 's/^[0-9]*: \([^:@]*\).*/\1/p' | while read -r pid; do ip link delete "$pid" || true; done
        ip link delete $BRIDGE || true
    fi
    for _ in $(seq 20); do
        cgroup_folders | while read -r folder; do find "$folder" -depth -type d -exec rmdir {} + 2>/dev/null; done || true
        [ -n "$(cgroup_folders)" ] || break
        sleep 0.1
    done
    rm -rf "$RUN" "$STATE/engine" "$STATE/clusters" "$STATE/kubeconfig"
}

# leftovers_own: what our own engine has left outside its folders, a line each; nothing when it is down.
leftovers_own() {
    local each command
    [ -r /proc/self/mounts ] || return 0
    for each in $(cgroup_processes); do
        # One that ended meanwhile is not left.
        command=$(tr '\0' ' ' 2>/dev/null <"/proc/$each/cmdline" | cut -c1-80) || continue
        printf 'process %s %s\n' "$each" "$command"
    done
    mounts_of_ours | sed 's/^/mount /'
    cgroup_folders | sed 's/^/cgroup /'
    for each in /sys/class/net/*; do
        if [ "${each##*/}" = $BRIDGE ]; then
            echo "bridge $BRIDGE"
        elif [ "$(readlink "$each/master" 2>/dev/null | sed 's,.*/,,')" = $BRIDGE ]; then
            echo "veth ${each##*/}"
        fi
    done
    if have nft; then nft list tables 2>/dev/null | grep ' lab_' | sed 's/^/nft /'; fi
    if [ -d "$RUN" ]; then echo "folder $RUN"; fi
}
