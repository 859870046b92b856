// A runc for machines that lack CAP_SYS_RESOURCE: there the real one refuses every privileged container.
//
// It takes that capability, and the negative oom scores that need it, out of what it is asked to run, and becomes
// the real runc. It must change nothing else.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
)

// The real runc; set when this is built.
var runc = "/usr/sbin/runc"

const lacking = "CAP_SYS_RESOURCE"

func main() {
	if err := narrow(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "runc wrapper:", err)
		os.Exit(1)
	}
	err := syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ())
	fmt.Fprintln(os.Stderr, "runc wrapper:", runc+":", err)
	os.Exit(1)
}

// narrow rewrites the bundle of `create` and `run`, and the process file of `exec`.
func narrow(args []string) error {
	switch {
	case slices.Contains(args, "create"), slices.Contains(args, "run"):
		bundle := option(args, "--bundle", "-b")
		return rewrite(filepath.Join(bundle, "config.json"), func(spec map[string]any) any { return spec["process"] })
	case slices.Contains(args, "exec"):
		if file := option(args, "--process", "-p"); file != "" {
			return rewrite(file, func(spec map[string]any) any { return spec })
		}
	}
	return nil
}

func option(args []string, names ...string) string {
	for at, arg := range args {
		for _, name := range names {
			if arg == name && at+1 < len(args) {
				return args[at+1]
			}
			if value, found := strings.CutPrefix(arg, name+"="); found {
				return value
			}
		}
	}
	return ""
}

func rewrite(path string, process func(map[string]any) any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(strings.NewReader(string(text)))
	decoder.UseNumber() // limits and ids do not fit a float
	var spec map[string]any
	if err := decoder.Decode(&spec); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if process, ok := process(spec).(map[string]any); ok {
		withoutCapability(process)
	}
	text, err = json.Marshal(spec)
	if err != nil {
		return err
	}
	return os.WriteFile(path, text, 0o600)
}

func withoutCapability(process map[string]any) {
	sets, _ := process["capabilities"].(map[string]any)
	for name, set := range sets {
		if list, ok := set.([]any); ok {
			sets[name] = slices.DeleteFunc(list, func(capability any) bool { return capability == lacking })
		}
	}
	if score, ok := process["oomScoreAdj"].(json.Number); ok && strings.HasPrefix(score.String(), "-") {
		delete(process, "oomScoreAdj")
	}
}
