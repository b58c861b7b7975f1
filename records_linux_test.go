package handover_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/history"
)

// happened waits until the service remembers something, and returns it.
func happened(t *testing.T, c *control.Client, what string, ok func(history.Entry) bool) (e history.Entry) {
	t.Helper()
	until(t, 20*time.Second, func() string {
		h, _, err := c.History(t.Context(), "", 0)
		if err != nil {
			return err.Error()
		}
		if i := slices.IndexFunc(h.Entries, ok); i >= 0 {
			e = h.Entries[i]
			return ""
		}
		return fmt.Sprintf("there is no %s in %+v", what, h)
	})
	return e
}

func death(cause string, generation int) func(history.Entry) bool {
	return func(e history.Entry) bool {
		return e.Death != nil && e.Death.Cause == cause && e.Death.Generation == generation
	}
}

func upgraded(result string, generation int) func(history.Entry) bool {
	return func(e history.Entry) bool {
		return e.Upgrade != nil && e.Upgrade.Result == result && e.Upgrade.Generation == generation
	}
}

// serves waits until the only worker serves, and returns its pid.
func serves(t *testing.T, c *control.Client) (pid int) {
	t.Helper()
	until(t, 20*time.Second, func() string {
		st, _, err := c.Status(t.Context())
		if err != nil || len(st.Groups[0].Workers) != 1 || st.Groups[0].Workers[0].State != "serving" {
			return fmt.Sprintf("%+v, %v", st, err)
		}
		pid = st.Groups[0].Workers[0].Pid
		return ""
	})
	return pid
}

// visit asks for a path, whatever comes of it.
func visit(t *testing.T, addr, path string) {
	t.Helper()
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}} // which does not ask again
	resp, err := c.Get("http://" + addr + path)
	if err == nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// TestHistory: deaths and upgrades are remembered, with all that is known of them, and
// over upgrades.
func TestHistory(t *testing.T) {
	s, path := controlled(t, 1)
	c := control.NewClient(path)
	visit(t, s.addr, "/")
	visit(t, s.addr, "/crash")
	crash := happened(t, c, "crash", death("crash", 1))
	if d := crash.Death; crash.N != 1 || !d.Failure || d.Group != "web" || d.Slot != 1 || d.ID != 1 || d.Pid == 0 || d.Exit != "exit status 2" ||
		!strings.HasPrefix(d.Reason, "panic: asked for at /crash") || !strings.Contains(d.Dump, "goroutine ") || !strings.Contains(d.Dump, "demo") ||
		d.Started.After(crash.Time) || !d.Drain.IsZero() || d.Terminated || d.Killed {
		t.Errorf("%+v", d)
	}
	if err := syscall.Kill(serves(t, c), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if d := happened(t, c, "retirement", death("retire", 1)).Death; d.Failure || d.Exit != "exit status 0" || d.Drain.IsZero() {
		t.Errorf("%+v", d)
	}
	s.replace(func(tmp string) error {
		return os.WriteFile(tmp, []byte("#!/bin/sh\necho no database\nexit 3\n"), 0o755)
	})
	if ev := result(t, asking(t, path)); ev.Result != control.Failed {
		t.Fatalf("%+v", ev)
	}
	failed := happened(t, c, "failed upgrade", upgraded("failed", 2))
	if u := failed.Upgrade; u.Output != "no database" || !strings.Contains(u.Reason, "exit status 3") || u.Began.IsZero() || u.Began.After(failed.Time) {
		t.Errorf("%+v", u)
	}
	s.install()
	for generation := 2; generation < 4; generation++ {
		s.upgrade()
		e := happened(t, c, "upgrade", upgraded("done", generation))
		if u := e.Upgrade; u.Reason != "" || u.Began.IsZero() || u.Began.After(e.Time) {
			t.Errorf("%+v", u)
		}
		happened(t, c, "end by the upgrade", death("upgrade", generation-1))
	}
	if got := happened(t, c, "crash", death("crash", 1)); got.N != crash.N || got.Death.Dump != crash.Death.Dump || !got.Time.Equal(crash.Time) {
		t.Errorf("what was remembered of the crash has become %+v", got)
	}
	h, _, err := c.History(t.Context(), fmt.Sprint(crash.Death.Pid), 0)
	if err != nil || len(h.Entries) == 0 || slices.ContainsFunc(h.Entries, func(e history.Entry) bool { return e.Death == nil || e.Death.Pid != crash.Death.Pid }) {
		t.Errorf("%+v, %v", h, err)
	}
	if h, _, err = c.Entry(t.Context(), crash.N); err != nil || len(h.Entries) != 1 || h.Entries[0].N != crash.N {
		t.Errorf("%+v, %v", h, err)
	}
	if h, _, err = c.History(t.Context(), "", 2); err != nil || len(h.Entries) != 2 || h.Entries[1].N != h.Entries[0].N+1 {
		t.Errorf("%+v, %v", h, err)
	}
}

// TestHistoryAfterResume: a successor that dies when it has been given all has taken
// nothing with it, and its failure is remembered.
func TestHistoryAfterResume(t *testing.T) {
	f := startFaulty(t, fault.NewTook, "TEST_KEEP_OUTPUT=1", "TEST_PROBATION=100ms")
	visit(t, f.addr, "/fail")
	happened(t, f.control, "failure", death("error", 1))
	from := f.upgradeTo(syscall.SIGKILL)
	if got := f.outcome(from); got != oldDecides {
		t.Fatal(got)
	}
	happened(t, f.control, "failure", death("error", 1))
	happened(t, f.control, "failed upgrade", upgraded("failed", 2))
	if l, _, err := f.control.Logs(t.Context(), "", 1000); err != nil || !strings.Contains(fmt.Sprint(l.Lines), "asked for at /fail") {
		t.Errorf("%+v, %v", l, err)
	}
	f.settle()
	f.upgrade()
	happened(t, f.control, "failed upgrade", upgraded("failed", 2))
	happened(t, f.control, "failure", death("error", 1))
	happened(t, f.control, "upgrade", upgraded("done", 2))
}

// TestWorkersLogs: what workers print is remembered, of the dead too, and who follows it hears of
// each line once, over upgrades.
func TestWorkersLogs(t *testing.T) {
	s, path := controlled(t, 1, "TEST_KEEP_OUTPUT=1")
	c := control.NewClient(path)
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var followed []control.Followed
	ended := make(chan error, 1)
	go func() {
		ended <- c.Follow(ctx, "web", 0, func(f control.Followed) { mu.Lock(); defer mu.Unlock(); followed = append(followed, f) })
	}()
	const upgrades = 3
	for generation := 1; generation <= upgrades; generation++ {
		if generation > 1 {
			s.upgrade()
		}
		serves(t, c)
		visit(t, s.addr, "/fail")
		happened(t, c, "failure", death("error", generation))
		until(t, 10*time.Second, func() string { // the follower has come again, too
			mu.Lock()
			defer mu.Unlock()
			for _, f := range followed {
				if f.Generation == generation && strings.Contains(f.Text, "asked for at /fail") {
					return ""
				}
			}
			return fmt.Sprintf("the follower does not hear of generation %d: %+v", generation, followed)
		})
	}
	cancel()
	if err := <-ended; err == nil {
		t.Error("it ends without a reason")
	}
	l, _, err := c.Logs(t.Context(), "web/1", 1000)
	if err != nil || len(l.Unkept) != 0 {
		t.Fatalf("%+v, %v", l, err)
	}
	failures := 0
	for i, line := range l.Lines {
		if i > 0 && line.N <= l.Lines[i-1].N {
			t.Errorf("%+v after %d", line, l.Lines[i-1].N)
		}
		if line.Stream != "stderr" || line.Pid == 0 || line.Group != "web" {
			t.Errorf("%+v", line)
		}
		if line.Text == "worker web/1 failed: error: asked for at /fail" { // its last one
			failures++
		}
		if !slices.ContainsFunc(followed, func(f control.Followed) bool { return f.N == line.N && f.Text == line.Text }) && line.Generation < upgrades {
			t.Errorf("the follower has not heard of %+v", line)
		}
	}
	for i, f := range followed {
		if f.Missed != 0 || i > 0 && f.N <= followed[i-1].N {
			t.Errorf("the follower hears %+v after %d", f, followed[i-1].N)
		}
	}
	if failures != upgrades {
		t.Errorf("%d failures in %+v", failures, l.Lines)
	}
	if got := s.tail(1000); strings.Count(got, "asked for at /fail") < upgrades || strings.Contains(got, "web/1 | ") {
		t.Error("it is not passed on as it is")
	}
}

// TestWorkersLogsUnkept: it is said of which workers nothing is kept.
func TestLogsUnkept(t *testing.T) {
	_, path := controlled(t, 2)
	l, _, err := control.NewClient(path).Logs(t.Context(), "web/2", 10)
	if err != nil || len(l.Lines) != 0 || len(l.Unkept) != 1 || l.Unkept[0].Slot != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}
