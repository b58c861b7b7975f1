package handover_test

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// TestBuildOnDisk: it is said which build runs, and when the one on disk is another.
func TestBuildOnDisk(t *testing.T) {
	s, path := controlled(t, 1)
	c := control.NewClient(path)
	warned := func(what, want string) {
		t.Helper()
		st, _, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(st.Warnings, "; "); (want == "") != (got == "") || !strings.Contains(got, want) {
			t.Errorf("%s: %q, not %q", what, got, want)
		}
		if st.Build.Path == "" || st.Build.ID == "" || st.Build.Go != runtime.Version() {
			t.Errorf("%s: %+v", what, st.Build)
		}
	}
	warned("at first", "")
	s.replace(func(tmp string) error { return copyFile("/proc/self/exe", tmp) })
	warned("a copy", "")
	s.replace(func(tmp string) error { return os.WriteFile(tmp, []byte("#!/bin/sh\n"), 0o755) })
	warned("another program", s.bin+" is not what runs: 'handover upgrade' changes to it")
	if err := os.Remove(s.bin); err != nil {
		t.Fatal(err)
	}
	warned("no program", "an upgrade would fail, its program can't be read: ")
	s.install()
	warned("itself again", "")
}

// TestDrainHeld: of a worker that drains it is said which connections keep it, and for how
// long they may; and what it uses.
func TestDrainHeld(t *testing.T) {
	s, path := controlled(t, 1)
	c := control.NewClient(path)
	h := holdFor(t, s.addr, 2*time.Second)
	s.upgrade()
	var old workerset.Worker
	until(t, 10*time.Second, func() string {
		st, _, err := c.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range st.Groups[0].Workers {
			if w.Generation == 1 && w.State == "draining" && len(w.Conns) > 0 {
				old = w
				return ""
			}
		}
		return fmt.Sprintf("%+v", st.Groups)
	})
	if len(old.Conns) != 1 || old.Conns[0].State != "active" || !strings.HasPrefix(old.Conns[0].Peer, "127.0.0.1:") {
		t.Errorf("%+v", old.Conns)
	}
	if left := old.Deadline.Sub(old.Drain); left != 25*time.Second || old.Drain.IsZero() || old.Let != "upgrade" {
		t.Errorf("%+v", old)
	}
	if u := old.Usage; u == nil || u.RSS < 1<<20 || u.PSS <= 0 {
		t.Errorf("%+v", u)
	}
	h.answeredBy(t, "generation=1 ")
}
