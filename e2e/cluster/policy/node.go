package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strings"

	"securelink/e2e/cluster/policy/ruleset"
)

// table is the real sink: the node's own nft.
type table struct{}

func (table) load(ctx context.Context, nft string) error {
	cmd := exec.CommandContext(ctx, "nft", "-f", "-")
	cmd.Stdin = strings.NewReader(nft)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("nft: %w: %s", err, out)
	}
	return nil
}

func (table) present(ctx context.Context) bool {
	return exec.CommandContext(ctx, "nft", "list", "chain", "inet", ruleset.Table, "forward").Run() == nil
}

// notifySystemd tells a unit of type notify that the first rules are in force. Elsewhere it does nothing.
func notifySystemd() error {
	path := os.Getenv("NOTIFY_SOCKET")
	if path == "" {
		return nil
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("cannot tell systemd that the rules are in force: %w", err)
	}
	defer conn.Close()
	_, err = conn.Write([]byte("READY=1"))
	return err
}
