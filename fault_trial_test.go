//go:build linux

package handover_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
)

// TestTrialDrains kills a new parent whose worker serves already, before the old one
// has let go: what that worker has taken is answered, then it is gone. A program
// serves when it likes, a worker of this binary from the commit on.
func TestTrialDrains(t *testing.T) {
	// Not the one in Go: its Shutdown may return before a connection counts that has
	// just been accepted (net/http), and strict clients see that.
	node := program(t, "node")
	for _, c := range []struct {
		step    string
		program bool
		serves  bool // at this step the new parent has a worker that does
	}{
		{fault.NewBegins, true, false},
		{fault.NewMet, true, false},
		{fault.NewBuilt, true, false},
		{fault.NewPrepared, true, true},
		{fault.NewGotCommit, true, true},
		{fault.NewTook, true, true},
		{fault.NewPIDFile, true, true},
		{fault.OldHeardReady, true, true}, // the old one is stopped until the new one has replaced all workers
		{fault.NewTook, false, true},
		{fault.NewPIDFile, false, true},
		{fault.OldHeardReady, false, true},
	} {
		name := "own, " + c.step
		if c.program {
			name = "program, " + c.step
		}
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var env []string
			if c.program {
				env = []string{"TEST_COMMAND=" + node, "TEST_READY=channel"}
			}
			f := startFaulty(t, c.step, env...)
			l := f.loadOf(20, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
			f.witness()
			before := f.workers()
			from := f.upgradeTo(syscall.SIGSTOP)
			stopped := f.stopped()
			dies := stopped
			if strings.HasPrefix(c.step, "old") {
				if got := f.outcome(from); got != newDecides {
					t.Fatal(got)
				}
				dies = f.parent()
			}
			fresh := slices.DeleteFunc(f.workers(), func(pid int) bool { return slices.Contains(before, pid) })
			if len(fresh) > 0 != c.serves {
				t.Fatalf("workers of the new parent: %v", fresh)
			}
			held := map[int]held{}
			for _, pid := range fresh {
				held[pid] = f.holdOn(pid)
			}
			from = f.mark()
			killed, err := launch.Follow(dies)
			if err != nil {
				t.Fatal(err)
			}
			_ = killed.Signal(syscall.SIGKILL)
			killed.Wait()
			killed.Close()
			_ = syscall.Kill(stopped, syscall.SIGCONT)
			if got := f.outcome(from); got != oldDecides {
				t.Error(got)
			}
			for pid, h := range held {
				close(h.finish)
				h.answeredBy(t, fmt.Sprintf("pid=%d ", pid))
			}
			f.goesOn(t, l)
		})
	}
}

// holdOn begins an upload to that worker: the others are stopped meanwhile.
func (f *faulty) holdOn(pid int) held {
	f.t.Helper()
	for _, other := range f.workers() {
		if other == pid {
			continue
		}
		err := procs.Freeze(f.t.Context(), other)
		if errors.Is(err, syscall.ESRCH) { // one that was drained has ended
			continue
		}
		if err != nil {
			f.t.Fatal(err)
		}
		defer func() { _ = syscall.Kill(other, syscall.SIGCONT) }()
	}
	return hold(f.t, f.addr)
}
