//go:build linux

package workerset_test

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// lines is what Config.Printed was told.
type lines struct {
	mu   sync.Mutex
	list []string
	more chan struct{}
}

func keepLines() *lines { return &lines{more: make(chan struct{}, 1)} }

func (l *lines) add(p workerset.Printed) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.list = append(l.list, fmt.Sprintf("%s/%d/%d/%d %s: %s", p.Group, p.Slot, p.ID, p.Generation, p.Stream, p.Text))
	if p.Pid == 0 || p.Time.IsZero() {
		l.list = append(l.list, fmt.Sprintf("%+v", p))
	}
	select {
	case l.more <- struct{}{}:
	default:
	}
}

// wait waits for a line.
func (l *lines) wait(t *testing.T, line string) {
	t.Helper()
	for deadline := time.After(patience); ; {
		l.mu.Lock()
		all := strings.Join(l.list, "\n")
		l.mu.Unlock()
		if strings.Contains(all+"\n", line+"\n") {
			return
		}
		select {
		case <-l.more:
		case <-deadline:
			t.Fatalf("%q was not printed, but\n%s", line, all)
		}
	}
}

// TestKeepOutput: what workers of this binary print is seen, goes through as it is, and in
// one piece also when another parent reads the end of a line.
func TestKeepOutput(t *testing.T) {
	t.Parallel()
	first, second := keepLines(), keepLines()
	keep := func(l *lines) func(*workerset.Config) {
		return func(c *workerset.Config) { c.Groups[0].KeepOutput, c.Printed = true, l.add }
	}
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("prints")}; keep(first)(c) }).serve()
	first.wait(t, "web/1/1/1 stdout: not for you")
	if w := h.status().Workers[0]; !w.Kept {
		t.Errorf("%+v", w)
	}
	next := h.trial(keep(second))
	pid := h.get("/half")
	next.set.Hold()
	h.handOver(next)
	old, _ := strconv.Atoi(pid)
	if err := syscall.Kill(old, syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	second.wait(t, "web/1/1/1 stdout: half a reopened")
	next.set.Release()
	next.waitStatus(func(g workerset.GroupStatus) bool { return len(g.Workers) == 1 && g.Workers[0].Generation == 2 })
	if pid := next.get("/half"); pid != itoa(next.pids("serving")[0]) {
		t.Fatal("somebody else answers")
	}
	if err := syscall.Kill(next.pids("serving")[0], syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	second.wait(t, "web/1/1/2 stdout: half a ")
	next.stop()
	b, err := os.ReadFile(h.out)
	if err != nil || string(b) != "not for you\n" {
		t.Errorf("%q, %v", b, err)
	}
	// (What the worker says on its other stream may come before.)
	if b, err := os.ReadFile(next.out); err != nil || !strings.Contains("\n"+string(b), "\nhalf a reopened\n") || !strings.HasSuffix(string(b), "\nhalf a ") {
		t.Errorf("%q, %v", b, err)
	}
}
