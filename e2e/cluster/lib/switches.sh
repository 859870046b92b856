# shellcheck shell=bash
# What stands between clusters: a fence that lets only the relay's port through, and switches that cut, throttle or
# drop. All of it lives inside the node containers and goes with them.

# fence NAME: from the network, only the relay's port and what the host sends (the API server's published port).
# Before DNAT, where a NodePort still has its own number; before the policy agent, whose business is pods.
fence() {
    local host
    host=$(docker network inspect -f '{{range .IPAM.Config}}{{.Gateway}} {{end}}' "$NETWORK" | tr ' ' '\n' | grep -F . | head -n1)
    in_node "$1" nft -f - <<NFT
table inet lab_fence
delete table inet lab_fence
table inet lab_fence {
    chain from_network {
        type filter hook prerouting priority mangle; policy accept;
        iifname != "eth0" accept
        ct state established,related accept
        ip saddr $host accept
        tcp dport $RELAY_PORT accept
        meta l4proto ipv6-icmp accept
        counter drop
    }
}
NFT
}

# drop FROM TO: what FROM sends is lost on arrival, silently, connections that exist included.
drop() {
    in_node "$2" nft -f - <<NFT
table inet lab_switch {
    chain lost {
        type filter hook prerouting priority raw; policy accept;
    }
}
add rule inet lab_switch lost ip saddr $(address_of "$1") counter drop
NFT
}

# throttle FROM TO RATE: what FROM sends to TO leaves at RATE. The queue is short, or it would hide the bottleneck.
throttle() {
    local to class
    to=$(address_of "$2")
    class=$(printf '%x' "$((16 + ${to##*.}))")
    in_node "$1" sh -ec "
        tc qdisc show dev eth0 | grep -q 'htb 1:' || tc qdisc add dev eth0 root handle 1: htb
        tc class replace dev eth0 parent 1: classid 1:$class htb rate $3 ceil $3
        tc qdisc replace dev eth0 parent 1:$class pfifo limit 100
        tc filter del dev eth0 parent 1: prio $((0x$class)) 2>/dev/null || true
        tc filter add dev eth0 parent 1: protocol ip prio $((0x$class)) u32 match ip dst $to/32 flowid 1:$class"
}

# signal NAME UID SIGNAL: to every process of the pod with that uid, but not to the one that holds its namespaces.
signal() {
    in_node "$1" sh -ec '
        found=
        for process in /proc/[0-9]*; do
            grep -qs -e "pod$1" -e "pod$(echo "$1" | tr - _)" "$process/cgroup" || continue
            [ "$(cat "$process/comm")" = pause ] && continue
            kill "-$2" "${process#/proc/}" && found=yes
        done
        [ "$found" ]' - "$2" "$3" || die "no process of a pod $2 runs in $1"
}

check_rate() {
    [[ $1 =~ ^[0-9]+([kmg]?bit|[kmg]?bps)$ ]] || die "'$1' is no rate; write it as tc does: 64kbit, 1mbit"
}

heal() {
    local name
    for name in $(every_cluster); do
        in_node "$name" sh -c 'nft delete table inet lab_switch 2>/dev/null; tc qdisc del dev eth0 root 2>/dev/null; true'
    done
}

# between VERB A B: two different clusters that exist.
between() {
    [ $# -ge 3 ] || die "$1 needs two clusters; see lab --help"
    need_cluster "$2"; need_cluster "$3"
    [ "$2" != "$3" ] || die "$1 needs two different clusters"
}

switches_of() {
    in_node "$1" sh -c 'nft list table inet lab_switch 2>/dev/null | grep -o "ip saddr.*"; tc class show dev eth0 2>/dev/null | grep htb' | sed 's/^/    /' || true
}
