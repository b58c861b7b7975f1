//go:build linux

package handover

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/image"
)

// TestPinned: it is said when a program's path leads elsewhere, when its file has changed,
// and when it is gone.
func TestPinned(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one, two, current := write("one", "#!/bin/sh\n"), write("two", "#!/bin/sh\n"), filepath.Join(dir, "current")
	link := func(to string) {
		_ = os.Remove(current)
		if err := os.Symlink(to, current); err != nil {
			t.Fatal(err)
		}
	}
	link(one)
	g := Group{Name: "js", Command: []string{current}}
	p, err := g.program()
	if err != nil {
		t.Fatal(err)
	}
	var b builds
	b.pin(Group{Name: "own"}, "")
	b.pin(g, p.Path)
	warned := func(want string) {
		t.Helper()
		var got string
		for _, p := range b.programs {
			got += p.warning()
		}
		if (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%q, not %q", got, want)
		}
	}
	warned("")
	link(two)
	warned(current + " is " + two + " now, and " + one + " runs: 'handover upgrade' changes to it")
	link(one)
	warned("")
	write("one", "#!/bin/sh\nexit\n")
	warned(one + " has changed since the workers were started: one that is replaced runs it already")
	if err := os.Remove(one); err != nil {
		t.Fatal(err)
	}
	warned("an upgrade would fail: ")
}

func TestBetween(t *testing.T) {
	t.Parallel()
	one, two := image.Build{Version: "v1.0.0"}, image.Build{Version: "v1.1.0"}
	for want, got := range map[string]string{
		" (v1.1.0 on disk, v1.0.0 runs)": between(one, two), "": between(one, one) + between(one, image.Build{}) + between(image.Build{}, two),
	} {
		if got != want {
			t.Errorf("%q, not %q", got, want)
		}
	}
}
