package ruleset

import (
	"fmt"
	"maps"
	"net/netip"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"
)

const thisNode = "here"

// testWorld is testdata/world.yaml: the pods that every case begins with, and ends outside of the cluster.
type testWorld struct {
	Namespaces []*corev1.Namespace
	Pods       []*corev1.Pod
	Outside    map[string][]netip.Addr
}

// testCase is one entry of testdata/cases.yaml.
type testCase struct {
	Name     string
	Policies []*networkingv1.NetworkPolicy
	Pods     []*corev1.Pod // beside the world's, or instead of one with the same name
	Allow    []string
	Deny     []string
}

func load[T any](t *testing.T, path string) T {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	var out T
	if err := yaml.UnmarshalStrict(text, &out); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return out
}

func loadAll(t *testing.T) (testWorld, []testCase) {
	t.Helper()
	return load[testWorld](t, "../testdata/world.yaml"), load[[]testCase](t, "../testdata/cases.yaml")
}

// with gives the world in which a case plays.
func (w testWorld) with(c testCase) testWorld {
	replaced := map[string]bool{}
	for _, pod := range c.Pods {
		replaced[pod.Namespace+"/"+pod.Name] = true
	}
	out := testWorld{Namespaces: w.Namespaces, Outside: w.Outside}
	for _, pod := range w.Pods {
		if !replaced[pod.Namespace+"/"+pod.Name] {
			out.Pods = append(out.Pods, pod.DeepCopy())
		}
	}
	for _, pod := range c.Pods {
		out.Pods = append(out.Pods, pod.DeepCopy())
	}
	for _, pod := range out.Pods {
		if pod.Spec.NodeName == "" {
			pod.Spec.NodeName = thisNode
		}
	}
	return out
}

func (w testWorld) build(t *testing.T, policies []*networkingv1.NetworkPolicy) Ruleset {
	t.Helper()
	rules, err := Build(thisNode, policies, w.Pods, w.Namespaces)
	if err != nil {
		t.Fatal(err)
	}
	return rules
}

// ends gives every name that a probe may use and its addresses.
func (w testWorld) ends() map[string][]netip.Addr {
	out := map[string][]netip.Addr{}
	for name, addrs := range w.Outside {
		out[name] = addrs
	}
	for _, pod := range w.Pods {
		out[pod.Namespace+"/"+pod.Name] = podAddrs(pod)
	}
	return out
}

// probe is one expectation. Its text is "SRC -> DST:PORT[/PROTOCOL][@6]".
type probe struct {
	text     string
	stars    int
	src, dst string
	flow     flow
	allow    bool
}

var probeText = regexp.MustCompile(`^(\S+) -> (\S+):(\d+)(?:/(TCP|UDP|SCTP))?(@6)?$`)

// probes reads a case's expectations. "*/*" (all pods), "*/a" and "x/*" stand for many, never for a pod toward
// itself; what is written with fewer stars counts more.
func (c testCase) probes(t *testing.T, w testWorld) []probe {
	t.Helper()
	ends := w.ends()
	byText := map[string]probe{}
	for _, side := range []struct {
		lines []string
		allow bool
	}{{c.Allow, true}, {c.Deny, false}} {
		for _, line := range side.lines {
			found := expand(t, line, ends)
			if len(found) == 0 {
				t.Fatalf("case %q: %q means nobody of this world", c.Name, line)
			}
			for _, p := range found {
				p.allow = side.allow
				before, ok := byText[p.text]
				if ok && before.stars == p.stars && before.allow != p.allow {
					t.Fatalf("case %q: %q is both allowed and denied", c.Name, p.text)
				}
				if !ok || p.stars < before.stars {
					byText[p.text] = p
				}
			}
		}
	}
	return slices.Collect(maps.Values(byText))
}

func expand(t *testing.T, line string, ends map[string][]netip.Addr) []probe {
	t.Helper()
	m := probeText.FindStringSubmatch(line)
	if m == nil {
		t.Fatalf("cannot read the probe %q", line)
	}
	stars := strings.Count(line, "*")
	port, _ := strconv.ParseUint(m[3], 10, 16)
	protocol := "tcp"
	if m[4] != "" {
		protocol = strings.ToLower(m[4])
	}
	var out []probe
	for src, srcAddrs := range ends {
		for dst, dstAddrs := range ends {
			if !fits(m[1], src) || !fits(m[2], dst) || stars > 0 && src == dst {
				continue
			}
			f := flow{pick(srcAddrs, m[5] != ""), pick(dstAddrs, m[5] != ""), uint16(port), protocol}
			if !f.src.IsValid() || !f.dst.IsValid() {
				continue
			}
			text := fmt.Sprintf("%s -> %s:%d/%s%s", src, dst, port, protocol, m[5])
			out = append(out, probe{text: text, stars: stars, src: src, dst: dst, flow: f})
		}
	}
	return out
}

func fits(pattern, name string) bool {
	if pattern == name {
		return true
	}
	wantNS, wantPod, _ := strings.Cut(pattern, "/")
	ns, pod, isPod := strings.Cut(name, "/")
	return isPod && (wantNS == "*" || wantNS == ns) && (wantPod == "*" || wantPod == pod)
}

func pick(addrs []netip.Addr, v6 bool) netip.Addr {
	for _, addr := range addrs {
		if addr.Is6() == v6 {
			return addr
		}
	}
	return netip.Addr{}
}

func TestEveryCaseHoldsByTheRules(t *testing.T) {
	base, cases := loadAll(t)
	if len(cases) < 40 {
		t.Fatalf("only %d cases were read", len(cases))
	}
	seen := map[string]bool{}
	for _, c := range cases {
		if seen[c.Name] {
			t.Fatalf("two cases are named %q", c.Name)
		}
		seen[c.Name] = true
		t.Run(c.Name, func(t *testing.T) {
			w := base.with(c)
			rules := w.build(t, c.Policies)
			for _, p := range c.probes(t, w) {
				if got := rules.allowed(p.flow); got != p.allow {
					t.Errorf("%s: allowed is %v, want %v", p.text, got, p.allow)
				}
			}
		})
	}
}
