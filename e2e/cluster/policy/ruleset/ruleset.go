// Package ruleset turns NetworkPolicies into what one node has to enforce, and that into an nft table.
// Everything here is pure: no client, clock, file or process.
package ruleset

import "net/netip"

// Ruleset is all that a node enforces. A pod that is not listed is open in both directions.
type Ruleset struct {
	Pods []Pod
}

// Pod is a pod of the node that at least one policy isolates.
type Pod struct {
	Name    string
	Addrs   []netip.Addr
	Ingress Direction
	Egress  Direction
}

// Direction is what a pod may accept (ingress) or open (egress).
// Isolated with nothing in Allow means: nothing.
type Direction struct {
	Isolated bool
	Allow    []Allow
}

// Allow lets the connections through that match Peers and Ports. Policies are additive: one match is enough.
type Allow struct {
	Policy string
	Peers  Peers
	Ports  []Ports // empty: every protocol and port
}

// Peers are the other ends of a connection: all, or the sum of single addresses and blocks.
type Peers struct {
	Any    bool
	Addrs  []netip.Addr
	Blocks []Block
}

// Block is an address range less its exceptions.
type Block struct {
	CIDR   netip.Prefix
	Except []netip.Prefix
}

// Ports is a range of one protocol, both ends included. First 0 means every port.
type Ports struct {
	Protocol    string // tcp, udp or sctp
	First, Last uint16
}
