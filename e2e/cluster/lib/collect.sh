# shellcheck shell=bash
# What a failed test leaves to read. Secrets are listed by name only: their content is key material.

# collect FOLDER
collect() {
    local folder=$1 name
    mkdir -p "$folder/lab"
    cp "$STATE"/logs/*.log "$folder/lab/" 2>/dev/null || true
    for name in $(every_cluster); do
        mkdir -p "$folder/$name"
        collect_cluster "$name" "$folder/$name" || say "cluster $name: not everything could be read"
    done
    say "logs: $folder"
}

collect_cluster() {
    local name=$1 folder=$2 kubectl=(docker exec "$(node_of "$1")" kubectl --kubeconfig /etc/kubernetes/admin.conf --request-timeout=20s) kinds
    "${kubectl[@]}" get events -A --sort-by=.lastTimestamp >"$folder/events.txt" 2>&1 || true
    kinds=$("${kubectl[@]}" api-resources --verbs=list -o name 2>/dev/null | grep -vxE 'secrets|events|events.events.k8s.io|componentstatuses' | paste -sd, || true)
    "${kubectl[@]}" get "${kinds:-pods}" -A -o yaml >"$folder/objects.yaml" 2>"$folder/objects.errors" || true
    "${kubectl[@]}" get secrets -A >"$folder/secrets.txt" 2>&1 || true
    "${kubectl[@]}" get pods -A -o wide >"$folder/pods.txt" 2>&1 || true
    docker cp "$(node_of "$name"):/var/log/pods" "$folder/" >/dev/null 2>&1 || true
    local unit
    for unit in kubelet containerd lab-policy; do
        docker exec "$(node_of "$name")" journalctl --no-pager -u $unit >"$folder/$unit.log" 2>&1 || true
    done
    docker exec "$(node_of "$name")" nft list ruleset >"$folder/nft.txt" 2>&1 || true
    docker logs "$(node_of "$name")" >"$folder/node.log" 2>&1 || true
}
