//go:build linux

package workerset_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/workerset"
)

func itoa(n int) string { return strconv.Itoa(n) }

func isConfigError(err error) bool { return errors.Is(err, workerset.ErrConfig) }

// most is the greatest number of workers that were started and had not been told
// to go, at any time.
func (h *harness) most() int {
	arrivedOrServes := map[int]bool{}
	most := 0
	for _, c := range h.all() {
		arrivedOrServes[c.Worker.ID] = slices.Contains([]string{"starting", "standby", "serving", "condemned"}, c.Worker.State)
		n := 0
		for _, is := range arrivedOrServes {
			if is {
				n++
			}
		}
		most = max(most, n)
	}
	return most
}

func TestRestart(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 3 }).serve()
	old := h.pids("serving")
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if got := h.pids("serving"); len(got) != 3 || slices.ContainsFunc(got, func(pid int) bool { return slices.Contains(old, pid) }) {
		t.Errorf("%v were replaced by %v", old, got)
	}
	if err := h.set.Drained(h.ctx()); err != nil {
		t.Fatal(err)
	}
	for _, pid := range old {
		if w := h.exited(pid); w.Cause != "" || w.Exit != "exit status 0" {
			t.Errorf("%+v", w)
		}
	}
	if st := h.status(); st.Restarts != 0 || st.Failures != 0 || len(st.Workers) != 3 {
		t.Errorf("%+v", st)
	}
	if n := h.most(); n != 4 {
		t.Errorf("up to %d workers at a time, not 4", n)
	}
}

func TestRestartDuringRestart(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2; c.Groups[0].Surge = 2 }).serve()
	first := make(chan error, 1)
	ctx := h.ctx()
	go func() { first <- h.set.Restart(ctx) }()
	h.state(3, "starting")
	if err := h.set.Restart(ctx); err != nil {
		t.Fatal(err)
	}
	if err := <-first; err != nil {
		t.Fatal(err)
	}
	if st := h.status(); st.Failures != 0 || len(h.pids("serving")) != 2 {
		t.Errorf("%+v", st)
	}
	if h.most() > 4 {
		t.Errorf("up to %d workers at a time", h.most())
	}
}

// TestRollStops: a replacement that can't start stops the roll, and who was to be
// replaced goes on.
func TestRollStops(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ do, why string }{
		{"exit at start", "exit at start: exit status 7"},
		{"error at start", "error: no database"},
		{"hang at start", "start timeout: not ready after 1s"},
		{"not JSON at start", `channel: wire: bad message: not JSON: "hello"`},
	} {
		t.Run(c.do, func(t *testing.T) {
			t.Parallel()
			what := filepath.Join(t.TempDir(), "what")
			say := func(text string) {
				if err := os.WriteFile(what, []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			say("serve")
			h := newSet(t, func(cfg *workerset.Config) {
				cfg.Groups[0].Count = 2
				cfg.Groups[0].Env = []string{do("file:" + what)}
				cfg.Groups[0].StartTimeout = time.Second
				cfg.Groups[0].DrainTimeout = time.Millisecond
			}).serve()
			old := h.pids("serving")
			say(c.do)
			err := h.set.Restart(h.ctx())
			if !errors.Is(err, workerset.ErrRollStopped) || !strings.Contains(err.Error(), c.why) {
				t.Fatal(err)
			}
			h.state(3, "exited")
			if got := h.pids("serving"); !slices.Equal(got, old) {
				t.Errorf("%v served, now %v do", old, got)
			}
			if st := h.status(); !strings.Contains(st.Halted, c.why) || st.Failures != 1 {
				t.Errorf("%+v", st)
			}
			if n := len(h.started()); n != 3 {
				t.Errorf("%d workers were started, not 3\n%s", n, h.story())
			}
			h.get("/")

			// A worker of the old ones that dies is replaced all the same, and the
			// group can be scaled.
			say("serve")
			if err := syscall.Kill(old[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.exited(old[0])
			if err := h.set.Scale(h.ctx(), "web", 3); err != nil {
				t.Fatal(err)
			}
			if !slices.Contains(h.pids("serving"), old[1]) {
				t.Error("the other one was rolled")
			}
			// Who asks anew starts it anew.
			if err := h.set.Restart(h.ctx()); err != nil {
				t.Fatal(err)
			}
			if st := h.status(); st.Halted != "" || len(h.pids("serving")) != 3 {
				t.Errorf("%+v", st)
			}
		})
	}
}

func TestScale(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	first := h.pids("serving")[0]
	for _, n := range []int{8, 2, 3, 1} {
		if err := h.set.Scale(h.ctx(), "web", n); err != nil {
			t.Fatal(err)
		}
		if got := h.pids("serving"); len(got) != n || !slices.Contains(got, first) {
			t.Errorf("scaled to %d: %v serve", n, got)
		}
	}
	if st := h.status(); st.Restarts != 0 || st.Failures != 0 || st.Count != 1 {
		t.Errorf("%+v", st)
	}
	if err := h.set.Scale(h.ctx(), "web", 0); err == nil || !strings.Contains(err.Error(), "scale web to 0") {
		t.Error(err)
	}
	if err := h.set.Scale(h.ctx(), "nobody", 1); !errors.Is(err, workerset.ErrNoGroup) || !strings.Contains(err.Error(), "nobody") {
		t.Error(err)
	}
	if err := h.set.Scale(h.ctx(), "web", 1); err != nil {
		t.Error(err)
	}
}

func TestScaleDuringRestart(t *testing.T) {
	t.Parallel()
	for _, to := range []int{1, 5} {
		t.Run(itoa(to), func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 3 }).serve()
			old := h.pids("serving")
			ctx := h.ctx()
			rolled := make(chan error, 1)
			go func() { rolled <- h.set.Restart(ctx) }()
			h.state(4, "starting")
			if err := h.set.Scale(ctx, "web", to); err != nil {
				t.Fatal(err)
			}
			if err := <-rolled; err != nil {
				t.Fatal(err)
			}
			got := h.pids("serving")
			if len(got) != to || slices.ContainsFunc(got, func(pid int) bool { return slices.Contains(old, pid) }) {
				t.Errorf("%v became %v", old, got)
			}
		})
	}
}

// freeze stops a worker with SIGSTOP and waits until it has stopped.
func (h *harness) freeze(pid int) {
	h.t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		h.t.Fatal(err)
	}
	for {
		err := unix.Waitid(unix.P_PID, pid, nil, unix.WSTOPPED|unix.WNOWAIT, nil)
		if err == nil {
			return
		}
		if err != unix.EINTR {
			h.t.Fatal(err)
		}
	}
}

// TestStopReport: what does not end by itself is cut, terminated and killed, in
// this order, and told.
func TestStopReport(t *testing.T) {
	t.Parallel()
	t.Run("in time", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 3 }).serve()
		end := h.hold()
		h.set.Stop()
		h.wait(0, func(c workerset.Change) bool { return c.Worker.State == "draining" })
		if _, err := end(); err != nil {
			t.Errorf("a request that was in flight: %v", err)
		}
		if r := h.stop(); r != (workerset.Report{Exited: 3}) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Millisecond }).serve()
		end := h.hold()
		if r := h.stop(); r != (workerset.Report{Exited: 1, Cut: 1}) {
			t.Errorf("%+v", r)
		}
		if _, err := end(); err == nil {
			t.Error("it was not cut")
		}
	})
	t.Run("deaf", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) {
			c.Groups[0].DrainTimeout = time.Millisecond
			c.Groups[0].Env = []string{do("deaf")}
		}).serve()
		if r := h.stop(); r != (workerset.Report{Terminated: 1, Killed: 1}) {
			t.Errorf("%+v", r)
		}
		if w := h.state(1, "exited"); w.Exit != "killed by SIGKILL" || w.Cause != "" {
			t.Errorf("%+v", w)
		}
	})
	t.Run("stopped", func(t *testing.T) { // by SIGSTOP
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Millisecond }).serve()
		h.freeze(h.pids("serving")[0])
		if r := h.stop(); r != (workerset.Report{Terminated: 1, Killed: 1}) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("at once", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2; c.Groups[0].Env = []string{do("deaf")} }).serve()
		h.set.Stop()
		h.set.Kill()
		if r := h.stop(); r != (workerset.Report{Killed: 2}) {
			t.Errorf("%+v", r)
		}
	})
	t.Run("while starting", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, func(c *workerset.Config) {
			c.Groups[0].Count = 3
			c.Groups[0].Env = []string{do("always:slow start")}
		}).start()
		h.state(1, "starting")
		if r := h.stop(); r != (workerset.Report{Exited: 3}) {
			t.Errorf("%+v", r)
		}
		if log := h.log.String(); strings.Contains(log, "ERROR") {
			t.Error(log)
		}
	})
	t.Run("before Run", func(t *testing.T) {
		t.Parallel()
		h := newSet(t, nil)
		execute, interrupt := h.set.Actor()
		interrupt(nil)
		if err := execute(); err != nil {
			t.Error(err)
		}
		for name, err := range map[string]error{
			"Restart": h.set.Restart(h.ctx()), "Scale": h.set.Scale(h.ctx(), "web", 2),
			"Ready": h.set.Ready(h.ctx()), "Commit": h.set.Commit(h.ctx(), workerset.Estate{}),
		} {
			if !errors.Is(err, workerset.ErrEnded) {
				t.Errorf("%s after the end: %v", name, err)
			}
		}
	})
}

// TestWaitsEndWithTheSet: nobody waits for what will not be any more.
func TestWaitsEndWithTheSet(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("always:slow start")} }).start()
	h.state(1, "starting")
	ctx := h.ctx()
	errs := make(chan error, 3)
	go func() { errs <- h.set.Ready(ctx) }()
	go func() { errs <- h.set.Restart(ctx) }()
	go func() { errs <- h.set.Scale(ctx, "web", 2) }()
	h.state(2, "starting") // one of them has arrived
	h.stop()
	for range 3 {
		if err := <-errs; !errors.Is(err, workerset.ErrEnded) {
			t.Error(err)
		}
	}
}
