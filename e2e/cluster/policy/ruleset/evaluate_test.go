package ruleset

import (
	"net/netip"
	"slices"
)

// flow is a new connection as the rules see it: after DNAT, before masquerading.
type flow struct {
	src, dst netip.Addr
	port     uint16
	protocol string
}

// allowed says in plain Go what the rendered table says in nft. The live test holds the two together.
func (r Ruleset) allowed(f flow) bool {
	if f.src == f.dst {
		return true
	}
	for _, pod := range r.Pods {
		if slices.Contains(pod.Addrs, f.src) && !pod.Egress.lets(f.dst, f) {
			return false
		}
		if slices.Contains(pod.Addrs, f.dst) && !pod.Ingress.lets(f.src, f) {
			return false
		}
	}
	return true
}

func (d Direction) lets(peer netip.Addr, f flow) bool {
	return !d.Isolated || slices.ContainsFunc(d.Allow, func(a Allow) bool {
		return a.Peers.contains(peer) && (len(a.Ports) == 0 || slices.ContainsFunc(a.Ports, func(p Ports) bool {
			return p.Protocol == f.protocol && (p.First == 0 || p.First <= f.port && f.port <= p.Last)
		}))
	})
}
