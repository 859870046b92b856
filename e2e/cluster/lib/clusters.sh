# shellcheck shell=bash
# Clusters: one kind cluster of one node for each organization, on one network.

# shellcheck disable=SC2034
RELAY_PORT=30443 # the only port of a cluster that another cluster reaches, a NodePort by convention
PROBE_IMAGE=lab-probe:1
OWN_IMAGE=securelink:lab

kind_name() { echo "securelink-$1"; }
node_of()   { echo "securelink-$1-control-plane"; }
in_node()   { local name=$1; shift; docker exec -i "$(node_of "$name")" "$@"; }

# every_cluster: the names of the lab's clusters.
every_cluster() {
    docker ps -a --filter label=io.x-k8s.kind.role=control-plane --filter name=^securelink- --format '{{.Names}}' |
        sed -n 's/^securelink-\(.*\)-control-plane$/\1/p' | sort
}

need_cluster() {
    docker inspect "$(node_of "$1")" >/dev/null 2>&1 || die "there is no cluster $1; clusters: $(every_cluster | xargs)"
}

address_of() { docker inspect -f "{{(index .NetworkSettings.Networks \"$NETWORK\").IPAddress}}" "$(node_of "$1")"; }

check_name() {
    [[ $1 =~ ^[a-z]([a-z0-9-]{0,28}[a-z0-9])?$ ]] || die "'$1' is no cluster name; use at most 30 of a-z, 0-9 and -, beginning with a letter"
}

answers() {
    [ "$(docker inspect -f '{{.State.Running}}' "$(node_of "$1")" 2>/dev/null)" = true ] &&
        timeout 10 docker exec "$(node_of "$1")" kubectl --kubeconfig /etc/kubernetes/admin.conf get --raw /readyz >/dev/null 2>&1
}

# clusters_up NAME…: makes the missing ones, all at a time.
clusters_up() {
    local name missing=() jobs=() failed=0
    for name in "$@"; do
        if answers "$name"; then say "cluster $name: up already"; continue; fi
        kind delete cluster -q --name "$(kind_name "$name")" 2>/dev/null || true
        missing+=("$name")
    done
    [ ${#missing[@]} -eq 0 ] && return 0
    mkdir -p "$STATE/clusters" "$STATE/kubeconfig"
    for name in "${missing[@]}"; do
        step "cluster $name" create "$name" "$IMAGE" &
        jobs+=($!)
    done
    for name in "${jobs[@]}"; do wait "$name" || failed=1; done
    if [ $failed -ne 0 ]; then
        collect "$STATE/failed" || true
        die "a cluster did not come up; what it said: $STATE/failed"
    fi
}

create() {
    local name=$1 image=$2 config
    config=$(mktemp "$STATE/clusters/.kind.XXXXXX")
    kind_config "$image" >"$config"
    kind create cluster --retain --name "$(kind_name "$name")" --config "$config" --wait 180s ${image:+--image "$image"} --kubeconfig "$STATE/kubeconfig/$name.yaml"
    rm -f "$config"
    [ -z "$image" ] || policy_agent "$name"
    fence "$name"
    # The ServiceAccount of a new namespace appears a moment later, and no pod can start before it.
    until_true 60 "the default ServiceAccount" in_node "$name" kubectl --kubeconfig /etc/kubernetes/admin.conf get serviceaccount default
    until_true 120 "DNS in $name" in_node "$name" kubectl --kubeconfig /etc/kubernetes/admin.conf -n kube-system wait --for=condition=Available deployment/coredns --timeout=5s
}

# kind_config IMAGE: kind's defaults, but for what our own image differs in.
kind_config() {
    cat <<'YAML'
kind: Cluster
apiVersion: kind.x-k8s.io/v1alpha4
nodes: [{role: control-plane}]
YAML
    [ -n "$1" ] || return 0
    # The controller manager's 20 requests a second would dominate every number of scale.
    cat <<'YAML'
networking: {disableDefaultCNI: true, kubeProxyMode: nftables}
kubeadmConfigPatches:
- |
  kind: KubeletConfiguration
  failCgroupV1: false
- |
  kind: ClusterConfiguration
  apiVersion: kubeadm.k8s.io/v1beta4
  controllerManager:
    extraArgs:
    - {name: kube-api-qps, value: "500"}
    - {name: kube-api-burst, value: "1000"}
YAML
}

# policy_agent NAME: starts the NetworkPolicy agent, where kindnet is absent.
policy_agent() { "$HERE/policy/install" "$(node_of "$1")" "$POLICY/bin/lab-policy"; }

build_policy() { go_build "$1" "$HERE/policy" lab-policy; }

policy_part() {
    need_go
    local sources
    sources=$(find "$HERE/policy" \( -name '*.go' -o -name 'go.*' \) ! -name '*_test.go' | sort)
    # shellcheck disable=SC2086 # a list of files
    part policy "$(key "$(recipe $sources)")" "the NetworkPolicy agent, as kindnet is absent" build_policy
    POLICY=$PART
}

# probe: the test image, a static program in an image of nothing else, so that building it pulls nothing.
probe() {
    need_go
    part probe "$(key "$(recipe "$HERE"/probe/*.go "$HERE"/probe/go.mod)")" "the test program lab-probe" build_probe
    cp "$HERE/probe/Dockerfile" "$PART/bin/"
    step "build the image lab-probe" docker build -q -t "$PROBE_IMAGE" "$PART/bin"
    [ -z "$(every_cluster)" ] || load_images "$PROBE_IMAGE"
    echo "$PROBE_IMAGE"
}
build_probe() { GOOS=linux go_build "$1" "$HERE/probe" lab-probe; }

# own_image: the product's image. Its binary is built by the cargo of this checkout, so that what was compiled before is
# used again and nothing is pulled; where there is none, by the Dockerfile's own stage.
own_image() {
    local root=$HERE/../.. context=$STATE/image
    if [ "$(uname -s)" = Linux ] && have cargo; then
        step "build securelink and securelink-operator, static" static_binary "$root" "$context"
        step "build the image $OWN_IMAGE" docker build -q -t "$OWN_IMAGE" -f "$root/Dockerfile" --target from-binary "$context"
    else
        step "build the image $OWN_IMAGE, its binary included" docker build -q -t "$OWN_IMAGE" "$root"
    fi
    rm -rf "$context"
    [ -z "$(every_cluster)" ] || load_images "$OWN_IMAGE"
    echo "$OWN_IMAGE"
}

# own_cli [IMAGE]: the program of that image as a plugin of kubectl; prints its folder.
own_cli() {
    local container image=${1:-$OWN_IMAGE}
    container=$(docker create "$image" 2>/dev/null) || die "there is no image $image yet; run 'lab image'"
    mkdir -p "$STATE/bin"
    docker cp "$container:/securelink" "$STATE/bin/kubectl-securelink" >&2 || die "the image $image holds no /securelink"
    docker rm "$container" >/dev/null
    echo "$STATE/bin"
}

# static_binary ROOT INTO. A named target, even if it is the machine's own: see the Dockerfile.
static_binary() {
    local target folder binary
    cd "$1"
    target=$(rustc -vV | sed -n 's/^host: //p')
    folder=$(cargo metadata --no-deps --format-version 1 --locked | sed -n 's/.*"target_directory":"\([^"]*\)".*/\1/p')
    RUSTFLAGS="-C target-feature=+crt-static" cargo build --release --locked --package securelink --package securelink-operator --target "$target"
    mkdir -p "$2"
    # Names of functions stay, for a backtrace; the lines of the source are four fifths of the size.
    for binary in securelink securelink-operator; do
        strip --strip-debug -o "$2/$binary" "$folder/$target/release/$binary"
    done
}

# load_images IMAGE…
load_images() {
    local image name id
    [ $# -gt 0 ] || die "load what? lab load IMAGE…"
    find_kind
    for image in "$@"; do
        docker image inspect "$image" >/dev/null 2>&1 || die "there is no image $image; build it with 'docker build -t $image …' after eval \"\$($HERE/lab env)\""
    done
    id=$(every_cluster)
    [ -n "$id" ] || die "no cluster is up; run 'lab up'"
    for name in $id; do
        step "load $* into $name" kind load docker-image --name "$(kind_name "$name")" "$@"
    done
}

network_down() { docker network rm "$NETWORK" >/dev/null 2>&1 || true; }

clusters_down() {
    local name
    for name in $(every_cluster); do
        kind delete cluster -q --name "$(kind_name "$name")" || docker rm -f -v "$(node_of "$name")" >/dev/null
        say "cluster $name: gone"
    done
    rm -rf "$STATE/clusters" "$STATE/kubeconfig"
}
