//go:build linux

package workerset_test

import (
	"errors"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestKeepFailed: a worker that could go on after its failure does, as often as it
// fails; one that can't is replaced, and one that dies.
func TestKeepFailed(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].KeepFailed = true
		c.Groups[0].Burst = 1
	}).serve()
	pid := h.pids("serving")[0]
	for path, want := range map[string]string{
		"/fail": "error: failed on request", "/panic": "handler panic: handler without luck",
		"/gopanic": "panic: goroutine without luck", "/goerror": "error: goroutine gave up",
	} {
		h.fails(path, pid, want)
	}
	h.get("/twice") // of the second it says nothing before the first is forgiven
	for _, want := range []string{"the first of two", "the second of two"} {
		h.news.wait(t, func(ev workerset.Event) bool { return ev.Kind == workerset.EventError && ev.Reason == want })
	}
	if h.get("/") != itoa(pid) {
		t.Error("another one answers")
	}
	g := h.group("web")
	if len(g.Workers) != 1 || g.Workers[0].State != "degraded" || g.Failures < 4 || g.Restarts != 0 {
		t.Errorf("%+v", g)
	}
	if !strings.Contains(h.log.String(), `msg="worker failed and goes on" worker=web/1`) {
		t.Error("nothing of it is in the log")
	}
	next := h.trial(func(c *workerset.Config) { c.Groups[0].KeepFailed = true })
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Drained(next.ctx()); err != nil { // so that it is not the old one that answers
		t.Fatal(err)
	}
	next.get("/error") // its app ends
	next.state(2, "serving")
	next.news.await(t, workerset.EventExit, "web", 1)
	if err := syscall.Kill(next.pids("serving")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next.state(3, "serving")
}

// fails asks for a failure until it is told of: until it has been forgiven for one, a
// worker says nothing of the next.
func (h *harness) fails(path string, pid int, want string) {
	h.t.Helper()
	until(h.t, want, func() bool {
		if resp, err := client.Get("http://" + h.addr + path); err == nil {
			resp.Body.Close()
		}
		h.news.mu.Lock()
		defer h.news.mu.Unlock()
		return slices.ContainsFunc(h.news.events, func(ev workerset.Event) bool {
			return ev.Kind == workerset.EventError && ev.Pid == pid && strings.HasPrefix(ev.Cause+": "+ev.Reason, want)
		})
	})
}

// until looks again and again.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); <-time.After(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("that does not happen: %s", what)
		}
	}
}

// TestGroupGivesUp: a limit of one group's own ends the set, and says why.
func TestGroupGivesUp(t *testing.T) {
	t.Parallel()
	bad := shell("bad", "")
	bad.Program.Args[1] = "exit 1"
	bad.MaxRestarts, bad.Sockets = 2, []string{}
	h := newSet(t, add(bad))
	if err := h.set.Run(); !errors.Is(err, workerset.ErrTooManyRestarts) || !strings.Contains(err.Error(), `3 of group "bad" within 1m0s`) {
		t.Error(err)
	}
	h.news.check(t)
}
