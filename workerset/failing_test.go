//go:build linux

package workerset_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestCrash: nobody could catch the panic; what the runtime said is kept.
func TestCrash(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	if _, err := client.Get("http://" + h.addr + "/crash"); err == nil {
		t.Error("it was answered")
	}
	w := h.state(1, "exited")
	if w.Cause != "crash" || w.Reason != "panic: nobody catches this" || w.Exit != "exit status 2" {
		t.Errorf("%+v", w)
	}
	if !strings.Contains(w.Dump, "goroutine ") || !strings.Contains(w.Dump, "behaviour_test.go") {
		t.Errorf("dump: %s", w.Dump)
	}
	h.state(2, "serving") // the end is logged by then
	if log := h.log.String(); !strings.Contains(log, "cause=crash") || !strings.Contains(log, "drained=false") {
		t.Error(log)
	}
}

// TestHung: a worker that does not say any more that it lives is ended, and told from
// one that is slow.
func TestHung(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Heartbeat, c.Groups[0].HungAfter = 20*time.Millisecond, 500*time.Millisecond
	}).serve()
	w := h.state(1, "serving")
	if err := syscall.Kill(w.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.state(2, "serving") // long before the other is gone: it gets 2 s
	if w := h.state(1, "exited"); w.Cause != "hung" || w.Reason != "silent for 500ms" || w.Exit != "killed by SIGKILL" {
		t.Errorf("%+v", w)
	}
}

func TestMaxRestarts(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.MaxRestarts = 3 })
	done := make(chan error, 1)
	go func() { done <- h.set.Run() }()
	for id := 1; id <= 4; id++ {
		w := h.state(id, "serving")
		if err := syscall.Kill(w.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	if err := <-done; !errors.Is(err, workerset.ErrTooManyRestarts) || !strings.Contains(err.Error(), `4 of group "web" within 1m0s`) {
		t.Error(err)
	}
}

func TestScaleByAndReopen(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	for _, c := range []struct{ by, want int }{{2, 3}, {-1, 2}, {-5, 1}} {
		if n, err := h.set.ScaleBy(h.ctx(), "web", c.by); err != nil || n != c.want {
			t.Errorf("%+d: %d, %v", c.by, n, err)
		}
		h.waitStatus(func(g workerset.GroupStatus) bool { return g.Count == c.want && len(h.pids("serving")) == c.want })
	}
	if _, err := h.set.ScaleBy(h.ctx(), "nobody", 1); !errors.Is(err, workerset.ErrNoGroup) {
		t.Error(err)
	}
	if err := h.set.Reopen(h.ctx()); err != nil {
		t.Fatal(err)
	}
	h.printed("reopened")
}

// TestQueueOutlivesWorker: what waits in the accept queue when a worker is killed is
// answered by its replacement, since the parent holds the socket.
func TestQueueOutlivesWorker(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	w := h.state(1, "serving")
	if err := syscall.Kill(w.Pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	h.waitStopped(w.Pid)
	const n = 200
	var conns []net.Conn
	for range n {
		c, err := net.Dial("tcp", h.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		conns = append(conns, c)
	}
	if err := syscall.Kill(w.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	next := h.state(2, "serving")
	for i, c := range conns {
		_ = c.SetReadDeadline(time.Now().Add(patience))
		b, err := io.ReadAll(c)
		if err != nil || !strings.HasSuffix(string(b), fmt.Sprintf("\n%d\n", next.Pid)) {
			t.Fatalf("connection %d of %d: %q, %v", i, n, b, err)
		}
	}
}

// waitStopped waits until a process is stopped.
func (h *harness) waitStopped(pid int) {
	h.t.Helper()
	for deadline := time.Now().Add(patience); ; {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil || time.Now().After(deadline) {
			h.t.Fatalf("process %d does not stop: %s, %v", pid, b, err)
		}
		if strings.Contains(string(b), ") T ") {
			return
		}
	}
}
