//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/workerset"
)

// The two sets of these tests are in one process, where a parent and its successor
// are two. What the first one started is not waited for any more when it has ended,
// as when its process has; so somebody else has to.

// trial makes the set of the next generation on h's socket, with its worker ready.
func (h *harness) trial(change func(*workerset.Config)) *harness {
	h.t.Helper()
	next := newSetOn(h.t, h.sock, h.addr, func(c *workerset.Config) {
		c.Generation = 2
		c.Trial = true
		if change != nil {
			change(c)
		}
	})
	return next.serve()
}

func (h *harness) yield() workerset.Estate {
	h.t.Helper()
	e, err := h.set.Yield(h.ctx())
	if err != nil {
		h.t.Fatal(err)
	}
	return e
}

// abandon ends h's set, whose workers go on, and reaps them in its place.
func (h *harness) abandon() {
	h.t.Helper()
	pids := map[int]bool{}
	for _, c := range h.all() {
		if c.Worker.State == "exited" {
			delete(pids, c.Worker.Pid)
		} else {
			pids[c.Worker.Pid] = true
		}
	}
	h.set.Abandon()
	<-h.ended
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		for pid := range pids {
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}()
	h.t.Cleanup(func() {
		select {
		case <-reaped:
		case <-time.After(patience):
			h.t.Error("a worker of the first set is left behind")
			for pid := range pids {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
			<-reaped
		}
	})
}

// handOver gives all that h has to next.
func (h *harness) handOver(next *harness) {
	h.t.Helper()
	e := h.yield()
	if err := next.set.Commit(h.ctx(), e); err != nil {
		h.t.Fatal(err)
	}
	h.abandon()
}

// spoken waits until workers of an estate have said something that nobody has read.
func spoken(t *testing.T, e workerset.Estate, pids ...int) {
	t.Helper()
	for name, f := range e.Files {
		for _, pid := range pids {
			if strings.HasPrefix(name, "channel:") && strings.HasSuffix(name, "/"+itoa(pid)) {
				fd, err := launch.Fd(f)
				if err != nil {
					t.Fatal(err)
				}
				n, err := 0, unix.EINTR
				for err == unix.EINTR {
					n, err = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(patience.Milliseconds()))
				}
				if n != 1 || err != nil {
					t.Fatalf("worker %d says nothing: %v", pid, err)
				}
			}
		}
	}
}

func TestHandOver(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2 }).serve()
	next := h.trial(func(c *workerset.Config) { c.Groups[0].Count = 2 })
	if got := next.pids("standby"); len(got) != 1 {
		t.Fatalf("%v stand by in a trial", got)
	}
	if err := syscall.Kill(next.pids("standby")[0], 0); err != nil {
		t.Fatal(err)
	}
	end := h.hold() // answered by the old generation: the new one does not accept yet
	old := h.pids("serving")
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if got := next.pids("serving"); len(got) != 2 || slices.Contains(got, old[0]) || slices.Contains(got, old[1]) {
		t.Errorf("%v were to be replaced, now %v serve", old, got)
	}
	if pid, err := end(); err != nil || pid != itoa(old[0]) && pid != itoa(old[1]) {
		t.Errorf("a request in flight was answered by %s: %v", pid, err)
	}
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range old {
		if w := next.exited(pid); w.Generation != 1 || w.Exit != "exit status 0" || w.Cause != "" {
			t.Errorf("%+v", w)
		}
	}
	if st := next.status(); st.Restarts != 0 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
}

// TestHandOverKeeps: what was counted, and what was decided at run time.
func TestHandOverKeeps(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ before, after, want int }{{1, 1, 3}, {1, 2, 2}} {
		t.Run(fmt.Sprint(c), func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(cfg *workerset.Config) { cfg.Groups[0].Count = c.before }).serve()
			pid := h.pids("serving")[0]
			h.get("/fail")
			h.exited(pid)
			if err := h.set.Scale(h.ctx(), "web", 3); err != nil {
				t.Fatal(err)
			}
			// One fails, and another retires, while nobody decides.
			next := h.trial(func(cfg *workerset.Config) { cfg.Groups[0].Count = c.after })
			e := h.yield()
			pids := h.pids("serving")
			for i, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
				if err := syscall.Kill(pids[i], sig); err != nil {
					t.Fatal(err)
				}
			}
			spoken(t, e, pids[:2]...)
			if err := next.set.Commit(h.ctx(), e); err != nil {
				t.Fatal(err)
			}
			h.abandon()
			if err := next.set.Ready(next.ctx()); err != nil {
				t.Fatal(err)
			}
			if st := next.status(); st.Count != c.want || len(next.pids("serving")) != c.want {
				t.Errorf("%d workers, not %d: %+v", st.Count, c.want, st)
			}
			if err := next.set.Drained(next.ctx()); err != nil {
				t.Fatal(err)
			}
			if w := next.exited(pids[0]); w.Cause != "error" || w.Exit != "exit status 1" {
				t.Errorf("%+v", w)
			}
			if w := next.exited(pids[1]); w.Cause == "error" || w.Exit != "exit status 0" {
				t.Errorf("%+v", w)
			}
			if w := next.exited(pids[2]); w.Cause != "" || w.Exit != "exit status 0" {
				t.Errorf("%+v", w)
			}
			// They may have been in the roll's turn before its word was read.
			if st := next.status(); st.Failures != 2 || st.Restarts < 1 || st.Restarts > 3 {
				t.Errorf("%+v", st)
			}
		})
	}
}

// TestHandOverInEveryState: a worker is handed over in the middle of something.
func TestHandOverInEveryState(t *testing.T) {
	t.Parallel()
	t.Run("draining", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, nil).serve()
		end := h.hold()
		old := h.pids("serving")[0]
		if err := h.set.Restart(h.ctx()); err != nil { // old drains now
			t.Fatal(err)
		}
		next := h.trial(nil)
		h.handOver(next)
		next.wait(0, func(c workerset.Change) bool { return c.Worker.Pid == old && c.Worker.State == "draining" })
		if _, err := end(); err != nil {
			t.Error(err)
		}
		if w := next.exited(old); w.Cause != "" || w.Exit != "exit status 0" {
			t.Errorf("%+v", w)
		}
		if st := next.status(); st.Failures != 0 || st.Restarts != 0 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("starting", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("slow start")} }).start()
		w := h.state(1, "starting")
		next := h.trial(nil)
		h.handOver(next)
		if got := next.exited(w.Pid); got.Cause != "" || got.Exit != "exit status 0" {
			t.Errorf("%+v", got)
		}
	})
	t.Run("dead", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, nil).serve()
		next := h.trial(nil)
		e := h.yield()
		pid := h.pids("serving")[0]
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if err := next.set.Commit(h.ctx(), e); err != nil {
			t.Fatal(err)
		}
		h.abandon()
		if w := next.exited(pid); w.Cause != "signal" && w.Cause != "exit" {
			t.Errorf("%+v", w)
		}
		next.get("/")
	})
	t.Run("without a channel", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) {
			c.Groups[0].Env = []string{do("closes its channel")}
			c.Groups[0].DrainTimeout = time.Hour
		}).start()
		w := h.state(1, "draining")
		next := h.trial(func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Millisecond })
		h.handOver(next)
		// It minds nothing but SIGKILL, and somebody has to know of it.
		got := next.exited(w.Pid)
		if got.Cause != "channel" || got.Exit != "killed by SIGKILL" && got.Exit != "exit status unknown" {
			t.Errorf("%+v", got)
		}
		if st := next.status(); st.Failures != 1 {
			t.Errorf("%+v", st)
		}
	})
	t.Run("half a line", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("half a line")} }).start()
		pid := h.state(1, "starting").Pid
		next := h.trial(nil)
		var e workerset.Estate
		for e = h.yield(); !strings.Contains(string(e.State), `"residue"`); e = h.yield() { // until it has been read
			e.Close()
			h.set.Resume()
		}
		if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil {
			t.Fatal(err)
		}
		if err := next.set.Commit(h.ctx(), e); err != nil {
			t.Fatal(err)
		}
		h.abandon()
		next.exited(pid)
		if log := next.log.String(); strings.Contains(log, "garbage") || strings.Contains(log, "half a line") {
			t.Error(log)
		}
	})
}

// TestDroppedGroup: the new generation has no such group.
func TestDroppedGroup(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups = append(c.Groups, workerset.Group{Name: "old", Count: 2})
	}).serve()
	next := h.trial(nil)
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Scale(next.ctx(), "old", 1); !errors.Is(err, workerset.ErrNoGroup) {
		t.Error(err)
	}
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	st, err := next.set.Status(next.ctx())
	if err != nil || len(st.Groups) != 1 || st.Groups[0].Name != "web" {
		t.Errorf("%+v, %v", st, err)
	}
	third := next.trial(func(c *workerset.Config) { c.Generation = 3 })
	next.handOver(third)
	if err := third.set.Ready(third.ctx()); err != nil {
		t.Fatal(err)
	}
}

// TestTrialFails: the reason is told, and no other worker is started.
func TestTrialFails(t *testing.T) {
	t.Parallel()
	for what, why := range map[string]string{
		"error at start":    "error: no database",
		"exit at start":     "exit at start: exit status 7",
		"done at start":     "done: the app returned",
		"hang at start":     "start timeout: not ready after 1s",
		"not JSON at start": "channel: ",
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) {
				c.Trial = true
				c.Groups[0].Count = 4
				c.Groups[0].StartTimeout = time.Second
				c.Groups[0].DrainTimeout = time.Millisecond
				c.Groups[0].Env = []string{do("always:" + what)}
			}).start()
			err := h.set.Ready(h.ctx())
			if err == nil || !strings.Contains(err.Error(), "worker web/1: "+why) {
				t.Error(err)
			}
			h.state(1, "exited")
			h.stop()
			if n := len(h.started()); n != 1 {
				t.Errorf("%d workers were started", n)
			}
		})
	}
}

// TestBadEstate: what can't be understood is closed, and nothing else happens.
// Not parallel: descriptors are counted.
func TestBadEstate(t *testing.T) {
	noLeak(t)
	h := newSet(t, func(c *workerset.Config) { c.Trial = true }).serve()
	null := func() *os.File {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	err := h.set.Commit(h.ctx(), workerset.Estate{
		State: []byte(`{"groups":{"web":{"count":-5,"configured":1}},"workers":7`),
		Files: map[string]*os.File{
			"pidfd:web/0/1/1/1": null(), "channel:web/0/1/1/1": null(), "pidfd:nonsense": null(), "other": null(),
			"channel:web/1/1/1/999999": null(), "pidfd:////": null(),
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if st := h.status(); len(st.Workers) != 1 || st.Count != 1 {
		t.Errorf("%+v", st)
	}
	for _, part := range []string{"history", "nonsense", `"other"`, "channel:web/1/1/1/999999"} {
		if !strings.Contains(strings.ReplaceAll(h.log.String(), `name=other`, `name="other"`), part) {
			t.Errorf("the log does not name %s:\n%s", part, h.log.String())
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	e, err := h.set.Yield(ctx) // which is quicker?
	if err != nil && !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	e.Close()
	h.set.Resume()
	h.stop()
}
