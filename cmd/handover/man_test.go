//go:build unix

package main

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra/doc"
)

var manDir = flag.String("man", "", "write the manual pages into this directory, which is there")

// TestMan makes the manual pages, for packages too (make man): every command has one, with
// its examples. What makes them stays out of the command, and so of the anchor's memory.
func TestMan(t *testing.T) {
	dir := *manDir
	if dir == "" {
		dir = t.TempDir()
	}
	root := newRoot()
	root.DisableAutoGenTag = true
	if err := doc.GenManTree(root, &doc.GenManHeader{Section: "1", Source: "handover", Manual: "Restarts that no client notices"}, dir); err != nil {
		t.Fatal(err)
	}
	for page, text := range map[string]string{
		"handover.1": `handover-restart(1)`, "handover-restart.1": "handover restart web/1", "handover-stop.1": "Exit codes", "handover-run.1": "--listen",
	} {
		b, err := os.ReadFile(filepath.Join(dir, page))
		if err != nil || !strings.Contains(strings.ReplaceAll(string(b), `\-`, "-"), text) {
			t.Errorf("%s does not say %q: %v", page, text, err)
		}
	}
}
