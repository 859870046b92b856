package main

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"
)

// promise is the time within which a changed policy has to be in force.
const promise = time.Second

// recorder is a sink that hands every written table to the test.
type recorder struct {
	tables chan string
	fail   chan error
}

func (r recorder) load(_ context.Context, nft string) error {
	select {
	case err := <-r.fail:
		return err
	default:
	}
	r.tables <- nft
	return nil
}

func (recorder) present(context.Context) bool { return true }

// running is an agent at work on a fake API server.
type running struct {
	*testing.T
	client *fake.Clientset
	tables chan string
	ready  chan struct{}
}

func start(t *testing.T, fail []error, objects ...runtime.Object) running {
	t.Helper()
	client := fake.NewClientset(objects...)
	sink := recorder{make(chan string, 100), make(chan error, len(fail))}
	for _, err := range fail {
		sink.fail <- err
	}
	ready := make(chan struct{}, 100)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() {
		done <- newAgent(client, "here", sink, func() error { ready <- struct{}{}; return nil }).run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("the agent stopped by itself: %v", err)
		}
	})
	return running{t, client, sink.tables, ready}
}

// wait gives the first written table that holds, or with "!" does not hold, the text.
func (r running) wait(within time.Duration, text string) {
	r.Helper()
	text, absent := strings.CutPrefix(text, "!")
	deadline := time.After(within)
	for {
		select {
		case table := <-r.tables:
			if strings.Contains(table, text) != absent {
				return
			}
		case <-deadline:
			r.Fatalf("no table with %q (absent: %v) within %s", text, absent, within)
		}
	}
}

func pod(name, node, ip string) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name, Labels: map[string]string{"pod": name}},
		Spec:       corev1.PodSpec{NodeName: node},
		Status:     corev1.PodStatus{PodIP: ip},
	}
}

func fromPod(name string) *networkingv1.NetworkPolicy {
	return &networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "p"},
		Spec: networkingv1.NetworkPolicySpec{Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{
			{PodSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"pod": name}}},
		}}}},
	}
}

const patience = 10 * time.Second

func TestTheFirstTableIsWrittenFromAllObjectsAndThenItIsReady(t *testing.T) {
	r := start(t, nil, pod("a", "here", "10.244.1.1"), pod("b", "there", "10.244.2.1"), fromPod("b"))
	select {
	case table := <-r.tables:
		for _, text := range []string{"10.244.1.1 : jump ingress-0", "saddr { 10.244.2.1 }"} {
			if !strings.Contains(table, text) {
				t.Errorf("the first table lacks %q:\n%s", text, table)
			}
		}
	case <-time.After(patience):
		t.Fatal("no table was written")
	}
	<-r.ready
}

func TestEveryKindOfChangeIsInForceWithinTheSecond(t *testing.T) {
	r := start(t, nil, pod("a", "here", "10.244.1.1"))
	r.wait(patience, "!jump")
	ctx, x := t.Context(), metav1.CreateOptions{}
	policies, pods := r.client.NetworkingV1().NetworkPolicies("x"), r.client.CoreV1().Pods("x")
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}

	must(policies.Create(ctx, fromPod("b"), x))
	r.wait(promise, "10.244.1.1 : jump ingress-0")
	must(pods.Create(ctx, pod("b", "there", "10.244.2.1"), x))
	r.wait(promise, "saddr { 10.244.2.1 }")
	must(pods.Update(ctx, pod("b", "there", "10.244.2.2"), metav1.UpdateOptions{}))
	r.wait(promise, "saddr { 10.244.2.2 }")
	must(nil, pods.Delete(ctx, "b", metav1.DeleteOptions{}))
	r.wait(promise, "!10.244.2.2")
	byNamespace := fromPod("b")
	byNamespace.Spec.Ingress[0].From[0] = networkingv1.NetworkPolicyPeer{
		NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"team": "red"}},
	}
	must(policies.Update(ctx, byNamespace, metav1.UpdateOptions{}))
	namespace := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "x", Labels: map[string]string{"team": "red"}}}
	must(r.client.CoreV1().Namespaces().Create(ctx, namespace, x))
	r.wait(promise, "saddr { 10.244.1.1 }")
	must(nil, policies.Delete(ctx, "p", metav1.DeleteOptions{}))
	r.wait(promise, "!jump")
}

func TestAFailedWriteIsTriedAgainAndOnlyThenItIsReady(t *testing.T) {
	r := start(t, []error{errors.New("nft is busy")}, pod("a", "here", "10.244.1.1"), fromPod("b"))
	r.wait(patience, "10.244.1.1 : jump ingress-0")
	<-r.ready
}

func TestNothingIsWrittenBeforeThePoliciesCanBeRead(t *testing.T) {
	client := fake.NewClientset(pod("a", "here", "10.244.1.1"), fromPod("b"))
	asked := make(chan struct{}, 100)
	open := make(chan struct{})
	client.PrependReactor("list", "networkpolicies", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-open:
			return false, nil, nil
		default:
			asked <- struct{}{}
			return true, nil, errors.New("forbidden")
		}
	})
	sink := recorder{make(chan string, 100), nil}
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- newAgent(client, "here", sink, func() error { return nil }).run(ctx) }()
	t.Cleanup(func() { stop(); <-done })
	<-asked
	if len(sink.tables) > 0 {
		t.Fatal("a table was written without the policies")
	}
	close(open)
	// Had a table been written before, it would be the first one here.
	if table := <-sink.tables; !strings.Contains(table, "jump ingress-0") {
		t.Errorf("the first table was written without the policies:\n%s", table)
	}
}
