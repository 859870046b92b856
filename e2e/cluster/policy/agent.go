package main

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"securelink/e2e/cluster/policy/ruleset"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	corelisters "k8s.io/client-go/listers/core/v1"
	networkinglisters "k8s.io/client-go/listers/networking/v1"
	"k8s.io/client-go/tools/cache"
)

const (
	// settle gathers the burst that one change makes (a policy, its pods) into one write. Far below the second
	// within which a change has to be in force.
	settle = 50 * time.Millisecond
	// retry is how soon a failed write is tried again.
	retry = time.Second
	// recheck finds a table that somebody flushed.
	recheck = 10 * time.Second
)

// sink is where rules go: the kernel's table, or a test.
type sink interface {
	// load replaces the table.
	load(ctx context.Context, nft string) error
	// present tells whether the table is still there.
	present(ctx context.Context) bool
}

// agent keeps the table equal to what the API server says. It changes nothing in the cluster.
type agent struct {
	node       string
	sink       sink
	ready      func() error
	factory    informers.SharedInformerFactory
	policies   networkinglisters.NetworkPolicyLister
	pods       corelisters.PodLister
	namespaces corelisters.NamespaceLister
	synced     []cache.InformerSynced
	dirty      chan struct{}
	written    string
}

func newAgent(client kubernetes.Interface, node string, sink sink, ready func() error) *agent {
	factory := informers.NewSharedInformerFactoryWithOptions(client, 0, informers.WithTransform(slim))
	policies := factory.Networking().V1().NetworkPolicies()
	pods := factory.Core().V1().Pods()
	namespaces := factory.Core().V1().Namespaces()
	a := &agent{
		node: node, sink: sink, ready: ready, factory: factory,
		policies: policies.Lister(), pods: pods.Lister(), namespaces: namespaces.Lister(),
		dirty: make(chan struct{}, 1),
	}
	mark := cache.ResourceEventHandlerFuncs{
		AddFunc:    func(any) { a.mark() },
		UpdateFunc: func(any, any) { a.mark() },
		DeleteFunc: func(any) { a.mark() },
	}
	for _, informer := range []cache.SharedIndexInformer{policies.Informer(), pods.Informer(), namespaces.Informer()} {
		// Fails only on an informer that was stopped.
		_, _ = informer.AddEventHandler(mark)
		a.synced = append(a.synced, informer.HasSynced)
	}
	return a
}

// slim drops what rules never look at and what is big.
func slim(object any) (any, error) {
	if meta, ok := object.(interface {
		SetAnnotations(map[string]string)
	}); ok {
		meta.SetAnnotations(nil)
	}
	return object, nil
}

func (a *agent) mark() {
	select {
	case a.dirty <- struct{}{}:
	default:
	}
}

// run writes the table until ctx ends, and leaves it in force then: a stopped agent opens nothing.
func (a *agent) run(ctx context.Context) error {
	a.factory.Start(ctx.Done())
	defer a.factory.Shutdown()
	// A table from half of the objects would close what a policy allows, or open what one closes.
	if !cache.WaitForCacheSync(ctx.Done(), a.synced...) {
		return ctx.Err()
	}
	first := true
	for {
		wait := recheck
		if err := a.write(ctx); err != nil {
			slog.Error("the rules are not in force, the last ones stay", "error", err, "retry", retry)
			wait = retry
		} else if first {
			first = false
			if err := a.ready(); err != nil {
				return err
			}
		}
		if err := a.next(ctx, wait); err != nil {
			return err
		}
	}
}

// next returns when there may be something to write.
func (a *agent) next(ctx context.Context, wait time.Duration) error {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		if a.written != "" && !a.sink.present(ctx) {
			slog.Warn("somebody removed the table, it is written anew")
			a.written = ""
		}
		return nil
	case <-a.dirty:
	}
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(settle):
		return nil
	}
}

// write loads the rules of this moment, unless they are in force already.
func (a *agent) write(ctx context.Context) error {
	policies, err := a.policies.List(labels.Everything())
	if err != nil {
		return err
	}
	pods, err := a.pods.List(labels.Everything())
	if err != nil {
		return err
	}
	namespaces, err := a.namespaces.List(labels.Everything())
	if err != nil {
		return err
	}
	return a.load(ctx, policies, pods, namespaces)
}

func (a *agent) load(ctx context.Context, policies []*networkingv1.NetworkPolicy, pods []*corev1.Pod, namespaces []*corev1.Namespace) error {
	rules, err := ruleset.Build(a.node, policies, pods, namespaces)
	if err != nil {
		return err
	}
	nft := rules.NFT()
	if nft == a.written {
		return nil
	}
	if err := a.sink.load(ctx, nft); err != nil {
		return fmt.Errorf("cannot load the table: %w", err)
	}
	a.written = nft
	slog.Info("rules are in force", "policies", len(policies), "isolated pods", len(rules.Pods))
	return nil
}
