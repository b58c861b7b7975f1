//go:build unix

package main

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
)

// TestExamples: every command has an example, and every example runs in a script, at
// addresses and paths of the script's own.
func TestExamples(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "script", "*.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	var scripts strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(b)) {
			if !strings.HasPrefix(line, "#") {
				scripts.WriteString(anyAddress(line))
			}
		}
	}
	for _, cmd := range commands(newRoot()) {
		if strings.TrimSpace(cmd.Example) == "" {
			t.Errorf("%s has no example", cmd.CommandPath())
		}
		for line := range strings.Lines(cmd.Example) {
			line = strings.TrimSpace(line)
			if runs := regexp.MustCompile(`(?m)` + regexp.QuoteMeta(anyAddress(line)) + `($|[ '">;&])`); !runs.MatchString(scripts.String()) {
				t.Errorf("%s: no script runs %s", cmd.CommandPath(), line)
			}
		}
	}
}

// commands are all that a person may type.
func commands(root *cobra.Command) (all []*cobra.Command) {
	for _, cmd := range root.Commands() {
		if cmd.Runnable() && cmd.Name() != "help" {
			all = append(all, cmd)
		}
		all = append(all, commands(cmd)...)
	}
	return all
}

// anyAddress leaves out where something listens, and where files are.
func anyAddress(line string) string {
	return regexp.MustCompile(`\b(tcp|udp|unix|http)://[^ '"\n]*|(\$WORK|/run|/etc|/srv|/usr)/[^ '"\n]*`).ReplaceAllString(line, "…")
}

// TestControlDoc: what docs/control.md types is what the script does.
func TestControlDoc(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "control.md"))
	if err != nil {
		t.Fatal(err)
	}
	script, err := os.ReadFile(filepath.Join("testdata", "script", "control.txtar"))
	if err != nil {
		t.Fatal(err)
	}
	lines := regexp.MustCompile(`(?m)^curl .*$`).FindAllString(string(doc), -1)
	if len(lines) < 10 {
		t.Errorf("%d lines of curl", len(lines))
	}
	for _, line := range lines {
		if !strings.Contains(string(script), "\nexec "+line+"\n") {
			t.Errorf("no script runs %s", line)
		}
	}
}
