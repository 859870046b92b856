package ruleset

import (
	"fmt"
	"net/netip"
	"strings"
)

// Table is the name of the one table that is written; nothing else in the node's nft rules is touched.
const Table = "lab-policy"

// NFT renders the rules as one `nft -f` transaction that replaces the table as a whole.
//
// Every packet of a connection is judged, not just the first, so that a changed policy also ends what is already
// open. Addresses and ports come from conntrack: source as the client sent it (before masquerading), destination as
// it is answered (after a Service's DNAT), the same for both directions of the packets.
func (r Ruleset) NFT() string {
	var b strings.Builder
	fmt.Fprintf(&b, "add table inet %s\ndelete table inet %s\ntable inet %s {\n", Table, Table, Table)
	r.writeForward(&b)
	// A reset ends an open TCP connection at once, where ICMP would only be noted by its socket.
	b.WriteString("\tchain deny {\n\t\ttcp flags & syn == 0 reject with tcp reset\n\t\treject with icmpx admin-prohibited\n\t}\n")
	for i, pod := range r.Pods {
		pod.Egress.write(&b, chain{fmt.Sprintf("egress-%d", i), "reply", "original"}, pod)
		pod.Ingress.write(&b, chain{fmt.Sprintf("ingress-%d", i), "original", "reply"}, pod)
	}
	b.WriteString("}\n")
	return b.String()
}

// writeForward writes the base chain. What a node itself sends to its pods (kubelet's probes) and what pods send to
// their node pass other hooks, so that they are always allowed, as they have to be.
func (r Ruleset) writeForward(b *strings.Builder) {
	b.WriteString("\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n")
	if len(r.Pods) > 0 {
		// conntrack knows no addresses for an invalid packet; kube-proxy drops them as well.
		b.WriteString("\t\tct state invalid drop\n\t\tct state related accept\n")
	}
	for _, family := range families {
		r.writeJumps(b, family, "original", "egress", func(p Pod) bool { return p.Egress.Isolated })
		r.writeJumps(b, family, "reply", "ingress", func(p Pod) bool { return p.Ingress.Isolated })
	}
	b.WriteString("\t}\n")
}

func (r Ruleset) writeJumps(b *strings.Builder, f family, side, prefix string, isolated func(Pod) bool) {
	var jumps []string
	for i, pod := range r.Pods {
		for _, addr := range pod.Addrs {
			if isolated(pod) && f.has(addr) {
				jumps = append(jumps, fmt.Sprintf("%s : jump %s-%d", addr, prefix, i))
			}
		}
	}
	if len(jumps) > 0 {
		fmt.Fprintf(b, "\t\tct %s %s saddr vmap { %s }\n", side, f.key, strings.Join(jumps, ", "))
	}
}

// chain is a pod's chain and the conntrack sides on which its peer and the pod itself are found.
type chain struct {
	name, peer, self string
}

// write gives one pod's chain: `return` lets a packet go on, to the other end's chain and then through.
func (d Direction) write(b *strings.Builder, c chain, pod Pod) {
	if !d.Isolated {
		return
	}
	fmt.Fprintf(b, "\tchain %s {\n\t\tcomment \"%s\"\n", c.name, comment(pod.Name))
	// A pod always reaches itself, also through a Service.
	for _, addr := range pod.Addrs {
		fmt.Fprintf(b, "\t\tct %s %s saddr %s ct %s %s saddr %s return\n",
			c.peer, familyOf(addr).key, addr, c.self, familyOf(addr).key, addr)
	}
	for _, allow := range d.Allow {
		for _, peer := range allow.Peers.matches(c.peer) {
			for _, port := range portMatches(allow.Ports) {
				fmt.Fprintf(b, "\t\t%s%sreturn comment \"%s\"\n", peer, port, comment(allow.Policy))
			}
		}
	}
	b.WriteString("\t\tgoto deny\n\t}\n")
}

// matches gives one nft match per rule that is needed to say the peers.
func (p Peers) matches(side string) []string {
	if p.Any {
		return []string{""}
	}
	var out []string
	for _, f := range families {
		var addrs []string
		for _, addr := range p.Addrs {
			if f.has(addr) {
				addrs = append(addrs, addr.String())
			}
		}
		if len(addrs) > 0 {
			out = append(out, fmt.Sprintf("ct %s %s saddr { %s } ", side, f.key, strings.Join(addrs, ", ")))
		}
	}
	for _, block := range p.Blocks {
		out = append(out, block.match(side))
	}
	return out
}

func (b Block) match(side string) string {
	key := familyOf(b.CIDR.Addr()).key
	match := fmt.Sprintf("meta nfproto %s ", familyOf(b.CIDR.Addr()).proto)
	// "/0" is the whole family, which nft has no prefix match for.
	if b.CIDR.Bits() > 0 {
		match = fmt.Sprintf("ct %s %s saddr %s ", side, key, b.CIDR)
	}
	for _, except := range b.Except {
		match += fmt.Sprintf("ct %s %s saddr != %s ", side, key, except)
	}
	return match
}

func portMatches(ports []Ports) []string {
	if len(ports) == 0 {
		return []string{""}
	}
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		match := fmt.Sprintf("meta l4proto %s ", p.Protocol)
		switch {
		case p.First == 0:
		case p.First == p.Last:
			match += fmt.Sprintf("ct reply proto-src %d ", p.First)
		default:
			match += fmt.Sprintf("ct reply proto-src %d-%d ", p.First, p.Last)
		}
		out = append(out, match)
	}
	return out
}

// family is how nft names an address family, as a conntrack key and as a protocol.
type family struct {
	key, proto string
	v4         bool
}

var families = []family{{"ip", "ipv4", true}, {"ip6", "ipv6", false}}

func (f family) has(addr netip.Addr) bool { return addr.Is4() == f.v4 }

func familyOf(addr netip.Addr) family {
	if addr.Is4() {
		return families[0]
	}
	return families[1]
}

// comment cuts a name to what nft stores. Kubernetes names hold no quotes.
func comment(name string) string {
	const limit = 120
	if len(name) > limit {
		return name[:limit]
	}
	return name
}
