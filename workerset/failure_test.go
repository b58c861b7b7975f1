//go:build linux

package workerset_test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// exited waits for the end of a worker.
func (h *harness) exited(pid int) workerset.Worker {
	h.t.Helper()
	c, _ := h.wait(0, func(c workerset.Change) bool { return c.Worker.Pid == pid && c.Worker.State == "exited" })
	return c.Worker
}

// oneForOne checks that every worker that served was replaced by exactly one, which
// served before the other was gone, and that the number that accepts did not fall
// below least.
func (h *harness) oneForOne(count, replacements, least int) {
	h.t.Helper()
	started, accepting, full := 0, map[int]bool{}, false
	serves := map[int]int{} // slot → workers that serve
	for _, c := range h.all() {
		w := c.Worker
		accepting[w.ID] = slices.Contains([]string{"serving", "condemned"}, w.State)
		n := 0
		for _, a := range accepting {
			if a {
				n++
			}
		}
		full = full || n >= count
		if full && n < least {
			h.t.Errorf("only %d workers accept when %d is %s", n, w.ID, w.State)
		}
		switch {
		case w.State == "starting":
			started++
		case w.State == "serving":
			serves[w.Slot]++
		case c.From == "serving":
			serves[w.Slot]--
		case w.State == "exited" && serves[w.Slot] != 1:
			h.t.Errorf("when %d is gone, %d workers serve its slot %d", w.ID, serves[w.Slot], w.Slot)
		}
	}
	if started != count+replacements {
		h.t.Errorf("%d workers were started for %d replacements, not %d", started, replacements, count+replacements)
	}
	st := h.status()
	if len(st.Workers) != count || st.Count != count || st.Restarts != replacements {
		h.t.Errorf("%d of %d workers, %d restarts, not %d, %d", len(st.Workers), st.Count, st.Restarts, count, replacements)
	}
	if h.t.Failed() {
		h.t.Log(h.story())
	}
}

func TestHundredFailures(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count, c.Groups[0].Burst = 2, 1000 }).serve()
	for range 100 {
		pid, err := strconv.Atoi(h.get("/fail"))
		if err != nil {
			t.Fatal(err)
		}
		if w := h.exited(pid); w.Cause != "error" || w.Reason != "failed on request" || w.Exit != "exit status 1" {
			t.Fatalf("a worker that failed: %+v", w)
		}
	}
	h.oneForOne(2, 100, 1)
	if n := h.status().Failures; n != 100 {
		t.Errorf("%d failures, not 100", n)
	}
}

func TestHundredTerms(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2 }).serve()
	for i := range 100 {
		pid := h.pids("serving")[i%2]
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		if w := h.exited(pid); w.Cause != "retire" || w.Exit != "exit status 0" {
			t.Fatalf("a worker that got SIGTERM: %+v", w)
		}
	}
	h.oneForOne(2, 100, 1)
	if n := h.status().Failures; n != 0 {
		t.Errorf("%d failures", n)
	}
	if log := h.log.String(); strings.Contains(log, "level=ERROR") || strings.Contains(log, "its slot waits") {
		t.Errorf("SIGTERM is no failure:\n%s", log)
	}
}

// TestManyAtOnce: all workers fail at the same time; each is replaced once, and all
// but one go on accepting.
func TestManyAtOnce(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGUSR1, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 4 }).serve()
			pids := h.pids("serving")
			for _, pid := range pids {
				if err := syscall.Kill(pid, sig); err != nil {
					t.Fatal(err)
				}
			}
			for _, pid := range pids {
				h.exited(pid)
			}
			h.oneForOne(4, 4, 3)
		})
	}
}

func TestFailuresToldApart(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		do, ask   string // what the first worker does at start, or is asked for
		signal    syscall.Signal
		wantCause string
		reason    string
		exit      string
		failures  int
	}{
		{ask: "/error", wantCause: "error", reason: "app gave up", exit: "exit status 1", failures: 1},
		{ask: "/goerror", wantCause: "error", reason: "goroutine gave up", exit: "exit status 1", failures: 1},
		{ask: "/gopanic", wantCause: "panic", reason: "goroutine without luck", exit: "exit status 1", failures: 1},
		{ask: "/panic", wantCause: "handler panic", reason: "handler without luck, at GET /panic", exit: "exit status 1", failures: 1},
		{ask: "/exit", wantCause: "exit", reason: "exit status 5", exit: "exit status 5", failures: 1},
		{ask: "/done", wantCause: "done", reason: "the app returned", exit: "exit status 0"},
		{signal: syscall.SIGKILL, wantCause: "signal", reason: "killed by SIGKILL", exit: "killed by SIGKILL", failures: 1},
		{signal: syscall.SIGTERM, wantCause: "retire", exit: "exit status 0"},
		{do: "error at start", wantCause: "error", reason: "no database", exit: "exit status 1", failures: 1},
		{do: "panic at start", wantCause: "panic", reason: "no luck", exit: "exit status 1", failures: 1},
		{do: "exit at start", wantCause: "exit at start", reason: "exit status 7", exit: "exit status 7", failures: 1},
		{do: "done at start", wantCause: "done", exit: "exit status 0"},
		{do: "slow start", wantCause: "start timeout", reason: "not ready after 1s", exit: "exit status 0", failures: 1},
		{do: "hang at start", wantCause: "start timeout", reason: "not ready after 1s", failures: 1},
	} {
		t.Run(c.do+c.ask+signalName(c.signal), func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(cfg *workerset.Config) {
				if c.do != "" {
					cfg.Groups[0].Env = []string{do(c.do)}
				}
				if c.wantCause == "start timeout" {
					cfg.Groups[0].StartTimeout = time.Second
					cfg.Groups[0].DrainTimeout = time.Millisecond
				}
			}).serve()
			if c.ask != "" {
				// The panicking handler has no answer.
				resp, err := client.Get("http://" + h.addr + c.ask)
				if err == nil {
					resp.Body.Close()
				}
			}
			if c.signal != 0 {
				if err := syscall.Kill(h.state(1, "serving").Pid, c.signal); err != nil {
					t.Fatal(err)
				}
			}
			w := h.state(1, "exited")
			if w.Cause != c.wantCause || !strings.Contains(w.Reason, c.reason) || c.exit != "" && w.Exit != c.exit {
				t.Errorf("got %q, %q, %q", w.Cause, w.Reason, w.Exit)
			}
			h.state(2, "serving")
			st := h.status()
			if st.Failures != c.failures || st.Restarts != 1 {
				t.Errorf("%d failures and %d restarts, not %d and 1", st.Failures, st.Restarts, c.failures)
			}
			if log := h.log.String(); !strings.Contains(log, "cause="+strconv.Quote(c.wantCause)) && !strings.Contains(log, "cause="+c.wantCause+" ") {
				t.Errorf("the log does not say %s:\n%s", c.wantCause, log)
			}
			if n := len(h.started()); n != 2 {
				t.Errorf("%d workers were started, not 2\n%s", n, h.story())
			}
		})
	}
}

func signalName(s syscall.Signal) string {
	if s == 0 {
		return ""
	}
	return s.String()
}

// started are the ids of workers whose processes were started, in this order.
func (h *harness) started() (ids []int) {
	for _, c := range h.all() {
		if c.Worker.State == "starting" {
			ids = append(ids, c.Worker.ID)
		}
	}
	return ids
}

// TestBackoff: workers that come to nothing are started later and later, those that
// only look like that are not.
func TestBackoff(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"exit at start", "error at start", "done at start", "not JSON at start"} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("always:" + what)} }).start()
			h.state(3, "exited")
			log := h.log.String()
			for _, wait := range []string{"wait=100ms failures=1", "wait=200ms failures=2", "wait=400ms failures=3"} {
				if !strings.Contains(log, wait) {
					t.Errorf("the log does not say %q:\n%s", wait, log)
				}
			}
			// A worker comes to nothing before the next one is started.
			last := 0
			for _, c := range h.all() {
				if c.Worker.State == "starting" && c.Worker.ID > 1 && last != c.Worker.ID-1 {
					t.Fatalf("worker %d was started before the one before it had come to nothing\n%s", c.Worker.ID, h.story())
				}
				if c.Worker.Cause != "" {
					last = c.Worker.ID
				}
			}
		})
	}
	t.Run("no program", func(t *testing.T) {
		t.Parallel()
		gone := filepath.Join(t.TempDir(), "gone")
		if err := os.WriteFile(gone, nil, 0o755); err != nil {
			t.Fatal(err)
		}
		h := newSet(t, func(c *workerset.Config) { c.Program.Path = gone })
		if err := os.Remove(gone); err != nil {
			t.Fatal(err)
		}
		h.start()
		w := h.state(2, "exited")
		if w.Cause != "not started" || !strings.Contains(w.Reason, gone) {
			t.Errorf("got %q, %q", w.Cause, w.Reason)
		}
	})
}

// TestFailureInDrain: who is let go and fails then is counted, and not replaced.
func TestFailureInDrain(t *testing.T) {
	t.Parallel()
	for _, sig := range []syscall.Signal{syscall.SIGKILL, syscall.SIGUSR1} {
		t.Run(sig.String(), func(t *testing.T) {
			t.Parallel()
			h := newSet(t, nil).serve()
			end := h.hold()
			pid := h.pids("serving")[0]
			if err := h.set.Restart(h.ctx()); err != nil {
				t.Fatal(err)
			}
			if err := syscall.Kill(pid, sig); err != nil {
				t.Fatal(err)
			}
			if sig == syscall.SIGUSR1 {
				h.waitStatus(func(g workerset.GroupStatus) bool { return g.Failures == 1 })
				if _, err := end(); err != nil {
					t.Errorf("a request that was in flight: %v", err)
				}
			}
			if w := h.exited(pid); w.Cause == "" || w.Cause == "retire" {
				t.Errorf("no cause: %+v", w)
			}
			if sig == syscall.SIGKILL {
				_, _ = end()
			}
			if st := h.status(); st.Failures != 1 || st.Restarts != 0 || len(h.started()) != 2 {
				t.Errorf("%+v, %d workers were started, not 2", st, len(h.started()))
			}
		})
	}
}

// waitStatus waits for what no change tells.
func (h *harness) waitStatus(ok func(workerset.GroupStatus) bool) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for !ok(h.status()) {
		if time.Now().After(deadline) {
			h.t.Fatalf("it does not come to that: %+v", h.status())
		}
	}
}
