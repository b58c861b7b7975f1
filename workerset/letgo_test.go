//go:build linux

package workerset_test

import (
	"strconv"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestLet: it is known why a worker was let go, since when it drained, and how often its
// slot was replaced, also by who has taken it over.
func TestLet(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Count = 2
		side := shell("side", "")
		side.Sockets = []string{}
		c.Groups = append(c.Groups, side)
	}).serve()
	gone := func(h *harness, group, let string, generation int) workerset.Worker {
		t.Helper()
		c, _ := h.wait(0, func(c workerset.Change) bool {
			return c.Worker.State == "exited" && c.Worker.Group == group && c.Worker.Let == let && c.Worker.Generation == generation
		})
		if c.Worker.Drain.IsZero() || c.Worker.Drain.Before(c.Worker.Started) || c.Worker.Cause != "" || c.Worker.Terminated || c.Worker.Killed {
			t.Errorf("%+v", c.Worker)
		}
		return c.Worker
	}
	if err := h.set.Scale(h.ctx(), "web", 1); err != nil {
		t.Fatal(err)
	}
	if w := gone(h, "web", "scale", 1); w.Slot != 2 {
		t.Errorf("%+v", w)
	}
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	gone(h, "web", "restart", 1)
	gone(h, "side", "restart", 1)
	pid, _ := strconv.Atoi(h.get("/fail"))
	if w := h.exited(pid); w.Cause != "error" {
		t.Errorf("%+v", w)
	}
	h.waitStatus(func(g workerset.GroupStatus) bool { return len(g.Workers) == 1 })
	if w := h.group("web").Workers[0]; w.Restarts != 1 || !w.Deadline.IsZero() {
		t.Errorf("%+v", w)
	}
	next := h.trial(nil)
	end := h.hold() // so that one drains
	h.handOver(next)
	c, _ := next.wait(0, func(c workerset.Change) bool {
		return c.Worker.State == "draining" && c.Worker.Let == "upgrade" && c.Worker.Group == "web"
	})
	if w := c.Worker; !w.Deadline.Equal(w.Drain.Add(5*time.Second)) || w.Restarts != 1 {
		t.Errorf("%+v", w)
	}
	if _, err := end(); err != nil {
		t.Error(err)
	}
	gone(next, "web", "upgrade", 1)
	gone(next, "side", "dropped", 1)
	next.stop()
	if w := gone(next, "web", "stop", 2); w.Restarts != 1 {
		t.Errorf("%+v", w)
	}
}
