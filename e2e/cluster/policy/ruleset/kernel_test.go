package ruleset

import (
	"errors"
	"net/netip"
	"sync"
	"syscall"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

func TestEveryCaseHoldsForRealPackets(t *testing.T) {
	base, cases := loadAll(t)
	l := newLab(t, base)
	for _, c := range cases {
		t.Run(c.Name, func(t *testing.T) {
			w := base.with(c)
			l.node.load(t, w.build(t, c.Policies))
			var wait sync.WaitGroup
			slots := make(chan struct{}, 16)
			for _, p := range c.probes(t, w) {
				src, live := l.ends[p.flow.src]
				if _, there := l.ends[p.flow.dst]; !live || !there || p.flow.protocol == "sctp" {
					continue
				}
				slots <- struct{}{}
				wait.Go(func() {
					defer func() { <-slots }()
					got, err := src.reaches(p.flow)
					if err != nil {
						t.Errorf("%s: neither through nor refused: %v", p.text, err)
					} else if got != p.allow {
						t.Errorf("%s: allowed is %v, want %v", p.text, got, p.allow)
					}
				})
			}
			wait.Wait()
		})
	}
}

// policy reads a NetworkPolicy's spec from one line.
func policy(t *testing.T, namespace, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	out := &networkingv1.NetworkPolicy{}
	out.Namespace, out.Name = namespace, "test"
	if err := yaml.UnmarshalStrict([]byte(spec), &out.Spec); err != nil {
		t.Fatal(err)
	}
	return out
}

const closed = `{podSelector: {}, policyTypes: [Ingress, Egress]}`

func (l lab) want(t *testing.T, from netns, f flow, allow bool) {
	t.Helper()
	if got, err := from.reaches(f); err != nil || got != allow {
		t.Errorf("%v: allowed is %v (%v), want %v", f, got, err, allow)
	}
}

var (
	xa      = netip.MustParseAddr("10.244.1.1")
	wa      = netip.MustParseAddr("10.244.2.1")
	za      = netip.MustParseAddr("10.244.3.1")
	xa6     = netip.MustParseAddr("fd00:10:244::1:1")
	outside = netip.MustParseAddr("198.51.100.7")
	service = netip.MustParseAddr("10.96.0.10")
	nowhere = netip.Addr{}
)

func TestTheNodeReachesIsolatedPodsAndTheyReachTheNode(t *testing.T) {
	w, _ := loadAll(t)
	l := newLab(t, w.with(testCase{}))
	rules := w.with(testCase{}).build(t, []*networkingv1.NetworkPolicy{policy(t, "x", closed)})
	l.node.load(t, rules)
	l.want(t, l.node, flow{nowhere, xa, 80, "tcp"}, true)
	l.want(t, l.node, flow{nowhere, xa6, 80, "tcp"}, true)
	l.want(t, l.ends[xa], flow{nowhere, netip.MustParseAddr(gateway4), 80, "tcp"}, true)
	l.want(t, l.ends[wa], flow{nowhere, xa, 80, "tcp"}, false)
}

func TestAServiceIsJudgedByTheEndpointBehindIt(t *testing.T) {
	base, _ := loadAll(t)
	w := base.with(testCase{})
	l := newLab(t, w)
	// As kube-proxy does it: DNAT before routing, and masquerading for a pod that is its own endpoint.
	l.node.run(t, `
table ip services {
	chain to_endpoints {
		type nat hook prerouting priority dstnat;
		ip daddr 10.96.0.10 tcp dport 443 dnat to 10.244.2.1:81
		ip daddr 10.96.0.10 tcp dport 444 dnat to 10.244.3.1:81
		ip daddr 10.96.0.10 tcp dport 445 dnat to 10.244.1.1:80
		ip daddr 10.96.0.10 tcp dport 446 dnat to 10.244.2.1:82
	}
	chain as_node {
		type nat hook postrouting priority srcnat;
		ct status dnat masquerade
	}
}`, "nft -f -")
	l.node.load(t, w.build(t, []*networkingv1.NetworkPolicy{
		policy(t, "x", `{podSelector: {}, policyTypes: [Ingress, Egress], egress: [{to: [{namespaceSelector: {matchLabels: {ns: w}}}], ports: [{port: 81}]}]}`),
		policy(t, "w", `{podSelector: {}, ingress: [{from: [{namespaceSelector: {matchLabels: {ns: x}}}]}]}`),
	}))
	for _, c := range []struct {
		why   string
		from  netip.Addr
		port  uint16
		allow bool
	}{
		{"both ends allow the endpoint and its port", xa, 443, true},
		{"the port behind it is not allowed", xa, 446, false},
		{"the endpoint is in no allowed namespace", xa, 444, false},
		{"a pod reaches itself through its own Service", xa, 445, true},
		{"the destination sees the real source through masquerading", za, 443, false},
		{"nobody isolates these two", wa, 444, true},
	} {
		t.Run(c.why, func(t *testing.T) {
			l.want(t, l.ends[c.from], flow{nowhere, service, c.port, "tcp"}, c.allow)
		})
	}
}

func TestANewPolicyEndsWhatIsOpenAndItsRemovalOpensAgain(t *testing.T) {
	base, _ := loadAll(t)
	w := base.with(testCase{})
	l := newLab(t, w)
	l.node.load(t, w.build(t, nil))
	for _, protocol := range []string{"tcp", "udp"} {
		conn, err := l.ends[wa].open(flow{wa, xa, 80, protocol})
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		l.node.load(t, w.build(t, []*networkingv1.NetworkPolicy{policy(t, "x", closed)}))
		err = say(conn)
		if !errors.Is(err, map[string]error{"tcp": syscall.ECONNRESET, "udp": syscall.EHOSTUNREACH}[protocol]) {
			t.Errorf("%s: an open connection saw %v", protocol, err)
		}
		l.want(t, l.ends[wa], flow{wa, xa, 80, protocol}, false)
		l.node.load(t, w.build(t, nil))
		l.want(t, l.ends[wa], flow{wa, xa, 80, protocol}, true)
	}
}

func TestAConnectionThatStaysAllowedOutlivesEveryReload(t *testing.T) {
	base, _ := loadAll(t)
	w := base.with(testCase{})
	l := newLab(t, w)
	allowing := policy(t, "x", `{podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{from: [{ipBlock: {cidr: 198.51.100.7/32}}], ports: [{port: 80}]}]}`)
	conn, err := l.ends[outside].open(flow{outside, xa, 80, "tcp"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for _, policies := range [][]*networkingv1.NetworkPolicy{{allowing}, nil, {allowing, policy(t, "w", closed)}, {allowing}} {
		l.node.load(t, w.build(t, policies))
		if err := say(conn); err != nil {
			t.Fatal(err)
		}
	}
}
