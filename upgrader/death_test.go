//go:build linux

package upgrader

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

var one = []string{"tcp://127.0.0.1:0"}

// When the old process dies before its commit, the new one goes on without a
// legacy, tells the supervisor, and nothing that it prints kills it.
func TestOldDiesBeforeCommit(t *testing.T) {
	t.Parallel()
	for how, set := range map[string]struct{ old, next settings }{
		"while the new one starts": {settings{}, settings{Mode: "old dies before commit", Yield: "give"}},
		"instead of committing":    {settings{Yield: "die"}, settings{Yield: "give"}},
	} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			set.next.Listen = one
			s := newSite(t, set.old)
			r := s.start()
			addr := r.addr()
			s.configure(set.next)
			r.signal(syscall.SIGHUP)
			r.orphaned(addr)
			r.await("inherited ")
			// Not lines: what was in the pipes may come later.
			if out := r.out.String(); strings.Count(out, "inherited ") != strings.Count(out, "inherited \n") {
				t.Error("it has inherited something")
			}
			r.stop()
		})
	}
}

// orphaned checks that the main process has died and another one goes on.
func (r *running) orphaned(addr string) {
	r.t.Helper()
	old := r.pid
	n := r.note()
	if _, err := fmt.Sscanf(n, "MAINPID=%d", &r.pid); err != nil || r.pid == old {
		r.t.Fatalf("the service says %q (%v)", n, err)
	}
	r.awaitEnd(old)
	r.serves(addr)
	if got := r.pidFile(); got != fmt.Sprintf("%d\n", r.pid) {
		r.t.Errorf("PID file %q", got)
	}
	r.configure(settings{Listen: one})
	r.upgrade()
	r.serves(addr)
}

// When it dies after its commit the new one decides, and names itself.
func TestOldDiesAfterCommit(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	s.configure(settings{Mode: "old dies after commit", Listen: one})
	old := r.pid
	r.signal(syscall.SIGHUP)
	n := r.note()
	if _, err := fmt.Sscanf(n, "MAINPID=%d", &r.pid); err != nil || r.pid == old {
		t.Fatalf("the service says %q (%v)", n, err)
	}
	if got := r.pidFile(); got != fmt.Sprintf("%d\n", r.pid) {
		t.Errorf("PID file %q", got)
	}
}

// As long as the old process has not let go, it goes on when the new one dies.
func TestNewDies(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"die after ack", "die after ready"} {
		t.Run(mode, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, settings{})
			r := s.start()
			addr := r.addr()
			for range 5 {
				s.configure(settings{Mode: mode, Listen: one})
				answers := make(chan answer, 1)
				r.barrier.Lock()
				go func() { answers <- r.tryUpgrade(r.pid, patience) }()
				var a answer
				select {
				case a = <-answers: // it saw the death first, always after an ack
					r.barrier.Unlock()
				case n := <-r.notes:
					// The old one waits for the supervisor: that is long enough
					// for the new one to die.
					r.awaitReaped(mainPID(t, n))
					r.barrier.Unlock()
					if back := mainPID(t, r.note()); back != r.pid {
						t.Fatalf("MAINPID=%d, want %d", back, r.pid)
					}
					a = <-answers
				}
				if !a.is("ended") || a.Failed.Status != "killed by SIGKILL" {
					t.Fatalf("%+v", a)
				}
				r.serves(addr)
				if got := r.pidFile(); got != fmt.Sprintf("%d\n", r.pid) {
					t.Errorf("PID file %q", got)
				}
			}
			s.configure(settings{Listen: one})
			r.upgrade()
			r.serves(addr)
			r.stop()
		})
	}
}

func mainPID(t *testing.T, note string) (pid int) {
	t.Helper()
	if _, err := fmt.Sscanf(note, "MAINPID=%d", &pid); err != nil {
		t.Fatalf("the service says %q", note)
	}
	return pid
}

// awaitReaped waits until nobody can ask for the process's status any more.
func (r *running) awaitReaped(pid int) {
	r.t.Helper()
	until(r.t, "it is reaped", func() bool { return syscall.Kill(pid, 0) == syscall.ESRCH })
}

// A new process that stops after the commit is not waited for long: nobody decides.
func TestNewHangsAfterCommit(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{CommitTimeout: 200 * time.Millisecond})
	r := s.start()
	addr := r.addr()
	s.configure(settings{Mode: "hang after commit", Listen: one})
	if a := r.tryUpgrade(r.pid, patience); !a.is("timeout") || !strings.Contains(a.Failed.Output, "hanging") {
		t.Errorf("%+v", a)
	}
	r.serves(addr)
	r.stop()
}
