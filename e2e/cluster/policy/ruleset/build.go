package ruleset

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Build computes the rules of one node. Equal input in any order gives an equal Ruleset.
//
// It fails only on objects that the API server would not have stored (a malformed selector or CIDR); the caller
// then keeps the rules it has, because skipping a policy would open what it closes.
func Build(node string, policies []*networkingv1.NetworkPolicy, pods []*corev1.Pod, namespaces []*corev1.Namespace) (Ruleset, error) {
	w := newWorld(pods, namespaces)
	policies = slices.Clone(policies)
	slices.SortFunc(policies, func(a, b *networkingv1.NetworkPolicy) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var out Ruleset
	for _, target := range w.pods {
		if target.Spec.NodeName != node {
			continue
		}
		pod := Pod{Name: target.Namespace + "/" + target.Name, Addrs: target.addrs}
		for _, policy := range policies {
			if err := w.add(&pod, target, policy); err != nil {
				return Ruleset{}, fmt.Errorf("NetworkPolicy %s/%s: %w", policy.Namespace, policy.Name, err)
			}
		}
		if pod.Ingress.Isolated || pod.Egress.Isolated {
			out.Pods = append(out.Pods, pod)
		}
	}
	return out, nil
}

// world is the pods that have addresses of their own, in order, and the labels of every namespace.
type world struct {
	pods       []livePod
	namespaces map[string]labels.Set
}

type livePod struct {
	*corev1.Pod
	addrs []netip.Addr
}

// newWorld leaves out pods on the host's network (their traffic is the node's) and finished ones (their address may
// already be another's). A terminating pod still runs, so it stays isolated and stays a peer until it is finished.
func newWorld(pods []*corev1.Pod, namespaces []*corev1.Namespace) world {
	w := world{namespaces: make(map[string]labels.Set, len(namespaces))}
	for _, ns := range namespaces {
		w.namespaces[ns.Name] = ns.Labels
	}
	pods = slices.DeleteFunc(slices.Clone(pods), func(p *corev1.Pod) bool {
		return p.Spec.HostNetwork || p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed
	})
	// For a moment a terminating pod and its successor may both claim an address: it is the successor's.
	slices.SortFunc(pods, func(a, b *corev1.Pod) int {
		return cmp.Or(compareBool(a.DeletionTimestamp != nil, b.DeletionTimestamp != nil),
			cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	taken := map[netip.Addr]bool{}
	for _, p := range pods {
		var addrs []netip.Addr
		for _, addr := range podAddrs(p) {
			if !taken[addr] {
				taken[addr] = true
				addrs = append(addrs, addr)
			}
		}
		if len(addrs) > 0 {
			w.pods = append(w.pods, livePod{p, addrs})
		}
	}
	slices.SortFunc(w.pods, func(a, b livePod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return w
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	default:
		return 1
	}
}

func podAddrs(p *corev1.Pod) []netip.Addr {
	var addrs []netip.Addr
	for _, ip := range append([]corev1.PodIP{{IP: p.Status.PodIP}}, p.Status.PodIPs...) {
		if addr, err := netip.ParseAddr(ip.IP); err == nil {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return sortedAddrs(addrs)
}

func sortedAddrs(addrs []netip.Addr) []netip.Addr {
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// add gives the pod what one policy says about it, which is nothing when the policy does not select it.
func (w *world) add(pod *Pod, target livePod, policy *networkingv1.NetworkPolicy) error {
	selector, err := metav1.LabelSelectorAsSelector(&policy.Spec.PodSelector)
	if err != nil {
		return err
	}
	if policy.Namespace != target.Namespace || !selector.Matches(labels.Set(target.Labels)) {
		return nil
	}
	ingress, egress := directions(policy)
	if ingress {
		pod.Ingress.Isolated = true
		for _, rule := range policy.Spec.Ingress {
			allow, err := w.ingress(policy, target, rule)
			if err != nil {
				return err
			}
			pod.Ingress.Allow = append(pod.Ingress.Allow, allow...)
		}
	}
	if egress {
		pod.Egress.Isolated = true
		for _, rule := range policy.Spec.Egress {
			allow, err := w.egress(policy, rule)
			if err != nil {
				return err
			}
			pod.Egress.Allow = append(pod.Egress.Allow, allow...)
		}
	}
	return nil
}

// directions fills in the API's default: always ingress, egress when there are egress rules.
func directions(policy *networkingv1.NetworkPolicy) (ingress, egress bool) {
	types := policy.Spec.PolicyTypes
	if len(types) == 0 {
		return true, len(policy.Spec.Egress) > 0
	}
	return slices.Contains(types, networkingv1.PolicyTypeIngress), slices.Contains(types, networkingv1.PolicyTypeEgress)
}

// ingress resolves port names at the isolated pod, since that is the one that listens.
func (w *world) ingress(policy *networkingv1.NetworkPolicy, target livePod, rule networkingv1.NetworkPolicyIngressRule) ([]Allow, error) {
	peers, err := w.peers(policy.Namespace, rule.From)
	if err != nil || peers.empty() {
		return nil, err
	}
	var ports []Ports
	for _, port := range rule.Ports {
		if name, ok := portName(port); ok {
			ports = append(ports, namedPorts(target, name, protocolOf(port.Protocol))...)
		} else {
			ports = append(ports, numberedPorts(port))
		}
	}
	// Names that resolve to nothing allow nothing, while no ports at all allow everything.
	if len(rule.Ports) > 0 && len(ports) == 0 {
		return nil, nil
	}
	return []Allow{{Policy: policyName(policy), Peers: peers, Ports: ports}}, nil
}

// egress resolves port names at each destination pod. Outside of pods a port has no name.
func (w *world) egress(policy *networkingv1.NetworkPolicy, rule networkingv1.NetworkPolicyEgressRule) ([]Allow, error) {
	peers, err := w.peers(policy.Namespace, rule.To)
	if err != nil || peers.empty() {
		return nil, err
	}
	var numbered []Ports
	named := map[Ports][]netip.Addr{}
	for _, port := range rule.Ports {
		name, ok := portName(port)
		if !ok {
			numbered = append(numbered, numberedPorts(port))
			continue
		}
		for _, destination := range w.pods {
			for _, at := range namedPorts(destination, name, protocolOf(port.Protocol)) {
				named[at] = append(named[at], peers.among(destination.addrs)...)
			}
		}
	}
	var out []Allow
	if len(rule.Ports) == 0 || len(numbered) > 0 {
		out = append(out, Allow{Policy: policyName(policy), Peers: peers, Ports: numbered})
	}
	for at, addrs := range named {
		if len(addrs) > 0 {
			out = append(out, Allow{Policy: policyName(policy), Peers: Peers{Addrs: sortedAddrs(addrs)}, Ports: []Ports{at}})
		}
	}
	slices.SortStableFunc(out, func(a, b Allow) int { return slices.CompareFunc(a.Ports, b.Ports, comparePorts) })
	return out, nil
}

// peers gives the addresses that a rule's `from` or `to` means; an empty list means everybody.
func (w *world) peers(namespace string, list []networkingv1.NetworkPolicyPeer) (Peers, error) {
	if len(list) == 0 {
		return Peers{Any: true}, nil
	}
	var out Peers
	for _, peer := range list {
		if peer.IPBlock != nil {
			block, err := parseBlock(peer.IPBlock)
			if err != nil {
				return Peers{}, err
			}
			out.Blocks = append(out.Blocks, block)
			continue
		}
		addrs, err := w.selected(namespace, peer)
		if err != nil {
			return Peers{}, err
		}
		out.Addrs = append(out.Addrs, addrs...)
	}
	out.Addrs = sortedAddrs(out.Addrs)
	return out, nil
}

// selected gives the pods of a peer's selectors. Without a namespaceSelector only the policy's own namespace counts,
// without a podSelector every pod does; a selector that is there but empty matches all.
func (w *world) selected(namespace string, peer networkingv1.NetworkPolicyPeer) ([]netip.Addr, error) {
	inNamespace := func(name string) bool { return name == namespace }
	if peer.NamespaceSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(peer.NamespaceSelector)
		if err != nil {
			return nil, err
		}
		inNamespace = func(name string) bool { return selector.Matches(w.namespaces[name]) }
	}
	pods := labels.Everything()
	if peer.PodSelector != nil {
		selector, err := metav1.LabelSelectorAsSelector(peer.PodSelector)
		if err != nil {
			return nil, err
		}
		pods = selector
	}
	var out []netip.Addr
	for _, pod := range w.pods {
		if inNamespace(pod.Namespace) && pods.Matches(labels.Set(pod.Labels)) {
			out = append(out, pod.addrs...)
		}
	}
	return out, nil
}

func parseBlock(block *networkingv1.IPBlock) (Block, error) {
	cidr, err := netip.ParsePrefix(block.CIDR)
	if err != nil {
		return Block{}, err
	}
	out := Block{CIDR: cidr.Masked()}
	for _, except := range block.Except {
		prefix, err := netip.ParsePrefix(except)
		if err != nil {
			return Block{}, err
		}
		out.Except = append(out.Except, prefix.Masked())
	}
	return out, nil
}

func (p Peers) empty() bool {
	return !p.Any && len(p.Addrs) == 0 && len(p.Blocks) == 0
}

// among gives those of the addresses that are peers.
func (p Peers) among(addrs []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, addr := range addrs {
		if p.contains(addr) {
			out = append(out, addr)
		}
	}
	return out
}

func (p Peers) contains(addr netip.Addr) bool {
	return p.Any || slices.Contains(p.Addrs, addr) ||
		slices.ContainsFunc(p.Blocks, func(b Block) bool { return b.contains(addr) })
}

func (b Block) contains(addr netip.Addr) bool {
	return b.CIDR.Contains(addr) &&
		!slices.ContainsFunc(b.Except, func(p netip.Prefix) bool { return p.Contains(addr) })
}

func policyName(policy *networkingv1.NetworkPolicy) string {
	return policy.Namespace + "/" + policy.Name
}

func portName(port networkingv1.NetworkPolicyPort) (string, bool) {
	if port.Port == nil || port.Port.Type != intstr.String {
		return "", false
	}
	return port.Port.StrVal, true
}

func protocolOf(protocol *corev1.Protocol) string {
	if protocol == nil || *protocol == "" {
		return "tcp"
	}
	return strings.ToLower(string(*protocol))
}

func numberedPorts(port networkingv1.NetworkPolicyPort) Ports {
	out := Ports{Protocol: protocolOf(port.Protocol)}
	if port.Port != nil {
		out.First = uint16(port.Port.IntVal)
		out.Last = out.First
		if port.EndPort != nil {
			out.Last = uint16(*port.EndPort)
		}
	}
	return out
}

// namedPorts looks through the containers and the init containers that keep running beside them.
func namedPorts(pod livePod, name, protocol string) []Ports {
	containers := slices.Clone(pod.Spec.Containers)
	for _, init := range pod.Spec.InitContainers {
		if init.RestartPolicy != nil && *init.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			containers = append(containers, init)
		}
	}
	var out []Ports
	for _, container := range containers {
		for _, port := range container.Ports {
			if port.Name == name && protocolOf(&port.Protocol) == protocol {
				number := uint16(port.ContainerPort)
				out = append(out, Ports{Protocol: protocol, First: number, Last: number})
			}
		}
	}
	return out
}

func comparePorts(a, b Ports) int {
	return cmp.Or(cmp.Compare(a.Protocol, b.Protocol), cmp.Compare(a.First, b.First), cmp.Compare(a.Last, b.Last))
}
