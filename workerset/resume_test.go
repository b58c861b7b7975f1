//go:build linux

package workerset_test

import (
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestResume: whoever got the estate is dead, and the set goes on.
func TestResume(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2 }).serve()
	e := h.yield()
	if _, err := h.set.Yield(h.ctx()); err == nil {
		t.Error("given away twice")
	}
	pids := h.pids("serving")
	if err := syscall.Kill(pids[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pids[1], syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	// The successor begins to read, and dies.
	spoken(t, e, pids...)
	for name, f := range e.Files {
		if strings.HasPrefix(name, "channel:") {
			_ = f.SetReadDeadline(time.Now().Add(patience))
			_, _ = f.Read(make([]byte, 10))
		}
	}
	if n := len(h.started()); n != 2 {
		t.Errorf("%d workers were started while it was given away", n-2)
	}
	e.Close()
	h.set.Resume()
	h.set.Resume() // nothing
	if w := h.exited(pids[0]); w.Cause != "signal" {
		t.Errorf("%+v", w)
	}
	if w := h.exited(pids[1]); w.Cause != "retire" || w.Exit != "exit status 0" {
		t.Errorf("%+v", w)
	}
	// Both are gone before their replacements begin.
	h.waitStatus(func(g workerset.GroupStatus) bool { return g.Restarts == 2 && len(g.Workers) == 2 })
	h.oneForOne(2, 2, 0)
	// Again and again, with nothing lost.
	for range 20 {
		e := h.yield()
		e.Close()
		h.set.Resume()
	}
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if st := h.status(); st.Failures != 1 {
		t.Errorf("%+v\n%s", st, h.log.String())
	}
}

func TestStopWhileGivenAway(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	e := h.yield()
	h.set.Stop()
	// Whoever has them now decides, so nothing happens to the workers.
	h.waitStatus(func(workerset.GroupStatus) bool { return true })
	h.get("/")
	e.Close()
	h.set.Resume()
	<-h.ended
	if r := h.set.StopReport(); r != (workerset.Report{Exited: 1}) {
		t.Errorf("%+v", r)
	}
}

// TestCommitWhileStopping: a stop that comes before the commit ends those that it
// brings.
func TestCommitWhileStopping(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	next := h.trial(func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Hour })
	frozen := next.pids("standby")[0]
	next.freeze(frozen) // so that the stop lasts
	next.set.Stop()
	next.wait(0, func(c workerset.Change) bool { return c.Worker.State == "draining" })
	pid := h.pids("serving")[0]
	h.handOver(next)
	if w := next.exited(pid); w.Exit != "exit status 0" || w.Cause != "" {
		t.Errorf("%+v", w)
	}
	if err := syscall.Kill(frozen, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	<-next.ended
	if r := next.set.StopReport(); r != (workerset.Report{Exited: 2}) {
		t.Errorf("%+v", r)
	}
}

// TestEndWhileGivenAway: programs that end at the moment at which the set is given away
// disturb nobody.
func TestEndWhileGivenAway(t *testing.T) {
	t.Parallel()
	const n = 8
	h := newForeign(t, "notify READY=1", func(c *workerset.Config) {
		c.Groups[0].Count = n
		c.Groups[0].Burst = 1000
	}).start()
	for range 10 {
		h.waitStatus(func(st workerset.GroupStatus) bool {
			return !slices.ContainsFunc(st.Workers, func(w workerset.Worker) bool { return w.State != "serving" }) && len(st.Workers) == n
		})
		for _, pid := range h.pids("serving")[:n/2] {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		h.yield().Close()
		h.set.Resume()
	}
	h.stop()
}
