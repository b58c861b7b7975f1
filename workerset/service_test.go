//go:build linux

package workerset_test

import (
	"path/filepath"
	"syscall"
	"testing"

	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// TestService: workers hear when all of the service is ready, and who its agent is: after
// its death another one, and of another parent that one's.
func TestService(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "notes")
	two := func(c *workerset.Config) {
		talking(c, 2, log)
		c.Groups[0].After = []string{"other"}
	}
	h := newSet(t, two).serve()
	hears := func(slot, id int) (s worker.Service) {
		t.Helper()
		if err := h.set.Messages().Request(h.ctx(), message.Slot("web", slot), "service", id, &s); err != nil {
			t.Fatal(err)
		}
		return s
	}
	agent := func(generation int) int {
		t.Helper()
		w, _ := h.wait(0, func(c workerset.Change) bool {
			return c.Worker.Group == "other" && c.Worker.Generation == generation && c.Worker.State == "serving"
		})
		return w.Worker.Pid
	}
	first := agent(1)
	for slot := range 2 {
		if s := hears(slot+1, 1); len(s.Helpers) != 1 || s.Helpers[0] != (worker.Helper{Group: "other", Slot: 1, ID: 1, Generation: 1, Pid: first}) {
			t.Errorf("%+v", s)
		}
	}
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if s := hears(2, 2); len(s.Helpers) != 1 || s.Helpers[0].Pid == first {
		t.Errorf("%+v", s)
	}
	next := h.trial(two)
	h.handOver(next)
	h = next
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if s := hears(1, 1); len(s.Helpers) != 1 || s.Helpers[0].Pid != agent(2) || s.Helpers[0].Generation != 2 {
		t.Errorf("%+v", s)
	}
}
