//go:build linux

package handover

import (
	"testing"

	"github.com/handover-go/handover/workerset"
)

// TestBackWhereItWas: on the way back a group executes what it did in that generation, where
// it did; one that was not there, or was something else, is looked up.
func TestBackWhereItWas(t *testing.T) {
	here := t.TempDir()
	p := &parent{back: &back{Recipe: recipe{Programs: map[string]location{
		"program": {Path: "/bin/sh", Name: "/old/link", Dir: "/old"}, "own": {Dir: "/old"}, "gone": {Path: "/no/such/program"},
	}}}}
	command := []string{"/bin/cat"}
	for _, c := range []struct {
		group Group
		want  workerset.Program
	}{
		{Group{Name: "program", Command: command}, workerset.Program{Path: "/bin/sh", Name: "/old/link", Dir: "/old"}},
		{Group{Name: "program", Dir: here}, workerset.Program{Dir: here}},
		{Group{Name: "own"}, workerset.Program{Dir: "/old"}},
		{Group{Name: "new", Dir: here}, workerset.Program{Dir: here}},
	} {
		got, err := p.programOf(c.group)
		if err != nil || got.Path != c.want.Path || got.Name != c.want.Name || got.Dir != c.want.Dir {
			t.Errorf("group %s: %+v, %v, not %+v", c.group.Name, got, err, c.want)
		}
	}
	if _, err := p.programOf(Group{Name: "gone", Command: command}); err == nil {
		t.Error("a program that is gone can be gone back to")
	}
	if got, err := p.programOf(Group{Name: "own", Command: command}); err != nil || got.Name != "/bin/cat" {
		t.Errorf("%+v, %v", got, err)
	}
}
