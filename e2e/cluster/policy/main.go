// lab-policy enforces NetworkPolicies on one node of the lab, where kindnet cannot be had. It is lab equipment and
// no part of the product. See README.md.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
)

func main() {
	if err := run(); err != nil && !errors.Is(err, context.Canceled) {
		slog.Error("lab-policy stopped", "error", err)
		os.Exit(1)
	}
}

func run() error {
	node := flag.String("node", "", "name of the node whose pods are isolated here")
	kubeconfig := flag.String("kubeconfig", "/etc/kubernetes/admin.conf", "file that says how to reach the API server")
	flag.Parse()
	if *node == "" || flag.NArg() > 0 {
		return errors.New("no node is named; give --node NAME and no further arguments")
	}
	config, err := clientcmd.BuildConfigFromFlags("", *kubeconfig)
	if err != nil {
		return fmt.Errorf("cannot read %s; give --kubeconfig the file of a user who may list pods, namespaces and networkpolicies: %w", *kubeconfig, err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	return newAgent(client, *node, table{}, notifySystemd).run(ctx)
}
