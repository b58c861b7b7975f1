//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// at is the worker that serves a slot.
func (h *harness) at(slot int) workerset.Worker {
	h.t.Helper()
	for _, w := range h.status().Workers {
		if w.Slot == slot && w.State == "serving" {
			return w
		}
	}
	h.t.Fatalf("nobody serves slot %d\n%s", slot, h.story())
	return workerset.Worker{}
}

func web(slot int) workerset.Which { return workerset.Which{Group: "web", Slot: slot} }

// others checks that nothing has happened to the workers of other slots.
func (h *harness) others(slot int, before []workerset.Worker) {
	h.t.Helper()
	for _, w := range before {
		if now := h.at(w.Slot); (now.Pid == w.Pid) == (w.Slot == slot) {
			h.t.Errorf("slot %d: pid %d became %d", w.Slot, w.Pid, now.Pid)
		}
	}
}

// unanswered fails the test if a call has returned although the set has looked whether
// it may.
func (h *harness) unanswered(call <-chan error) {
	h.t.Helper()
	for range 50 { // the set's loop goes round, and whoever it has answered has his turn
		h.status()
	}
	select {
	case err := <-call:
		h.t.Fatalf("it has returned %v\n%s", err, h.story())
	default:
	}
}

// TestSettledIsTrue: who waits until the old workers accept no more waits until they say
// so, not until they are told.
func TestSettledIsTrue(t *testing.T) {
	t.Parallel()
	for name, act := range map[string]func(*harness, context.Context) error{
		"restart":     func(h *harness, ctx context.Context) error { return h.set.Restart(ctx) },
		"restart one": func(h *harness, ctx context.Context) error { return h.set.RestartWorker(ctx, web(2)) },
		"scale":       func(h *harness, ctx context.Context) error { return h.set.Scale(ctx, "web", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2; c.Groups[0].DrainTimeout = time.Minute }).serve()
			old := h.at(2)
			h.freeze(old.Pid)
			call := make(chan error, 1)
			go func() { call <- act(h, h.ctx()) }()
			h.state(old.ID, "draining")
			h.unanswered(call)
			if err := syscall.Kill(old.Pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if err := <-call; err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestSettledIsBounded: who never says that it drains is waited for until it is killed.
func TestSettledIsBounded(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].DrainTimeout = time.Millisecond
		c.Groups[0].Env = []string{do("deaf")}
	}).serve()
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	if w := h.status().Workers[0]; w.ID == 1 && w.State != "killing" {
		t.Errorf("%+v", w)
	}
}

func TestRestartWorker(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 3 }).serve()
	before := h.status().Workers
	if err := h.set.RestartWorker(h.ctx(), web(2)); err != nil {
		t.Fatal(err)
	}
	h.others(2, before)
	before = h.status().Workers
	before = slices.DeleteFunc(before, func(w workerset.Worker) bool { return w.State != "serving" })
	if err := h.set.RestartWorker(h.ctx(), workerset.Which{Pid: h.at(3).Pid}); err != nil {
		t.Fatal(err)
	}
	h.others(3, before)
	if st := h.status(); st.Restarts != 0 || st.Failures != 0 || h.most() != 4 {
		t.Errorf("up to %d at a time: %+v", h.most(), st)
	}
	for _, w := range []workerset.Which{web(4), {Group: "job", Slot: 1}, {Pid: 1}} {
		if err := h.set.RestartWorker(h.ctx(), w); !errors.Is(err, workerset.ErrNoWorker) || !strings.Contains(err.Error(), "web/3 (pid ") {
			t.Errorf("%v: %v", w, err)
		}
	}
	h.stop()
	if err := h.set.RestartWorker(h.ctx(), web(1)); !errors.Is(err, workerset.ErrEnded) {
		t.Error(err)
	}
}

// TestRestartWorkerStops: the replacement can't start, and the old one goes on.
func TestRestartWorkerStops(t *testing.T) {
	t.Parallel()
	what := filepath.Join(t.TempDir(), "what")
	say := func(text string) {
		if err := os.WriteFile(what, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	say("serve")
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Count = 2
		c.Groups[0].Env = []string{do("file:" + what)}
	}).serve()
	old := h.at(2)
	say("error at start")
	for name, act := range map[string]func(context.Context, workerset.Which) error{"restart": h.set.RestartWorker, "drain": h.set.DrainWorker} {
		if err := act(h.ctx(), web(2)); !errors.Is(err, workerset.ErrRollStopped) || !strings.Contains(err.Error(), "no database") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if now := h.at(2); now.Pid != old.Pid {
		t.Errorf("pid %d became %d", old.Pid, now.Pid)
	}
	h.state(3, "exited")
	h.state(4, "exited")
	// One that is killed can't go on; its slot stays empty, which is said.
	if err := h.set.KillWorker(h.ctx(), web(2)); !errors.Is(err, workerset.ErrRollStopped) || !strings.Contains(err.Error(), "slot web/2 is empty after 3 tries") {
		t.Error(err)
	}
	if err := h.set.Scale(h.ctx(), "web", 2); !errors.Is(err, workerset.ErrRollStopped) {
		t.Error(err)
	}
	// Who asks anew does not wait for the slot's time.
	h.state(7, "exited")
	say("serve")
	if err := h.set.RestartWorker(h.ctx(), web(2)); err != nil {
		t.Error(err)
	}
	h.at(2)
}

// TestDrainWorker: the replacement serves first, and who asks waits for the end.
func TestDrainWorker(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Minute }).serve()
	end := h.hold()
	old := h.at(1)
	call := make(chan error, 2)
	drain := func(w workerset.Which) { call <- h.set.DrainWorker(h.ctx(), w) }
	go drain(web(1))
	h.state(old.ID, "draining")
	if now := h.at(1); now.Pid == old.Pid {
		t.Error("the old one serves")
	}
	if err := h.set.RestartWorker(h.ctx(), workerset.Which{Pid: old.Pid}); err != nil { // it has said that it drains
		t.Fatal(err)
	}
	h.unanswered(call)
	go drain(workerset.Which{Pid: old.Pid}) // which it does already
	h.unanswered(call)
	if _, err := end(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := <-call; err != nil {
			t.Error(err)
		}
	}
	if w := h.exited(old.Pid); w.Exit != "exit status 0" || w.Cause != "" {
		t.Errorf("%+v", w)
	}
	if n := len(h.started()); n != 2 {
		t.Errorf("%d workers were started", n)
	}
}

func TestKillWorker(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2; c.Groups[0].MaxRestarts = 1 }).serve()
	for range 3 {
		before := h.status().Workers
		old := h.at(1)
		h.freeze(old.Pid)
		if err := h.set.KillWorker(h.ctx(), web(1)); err != nil {
			t.Fatal(err)
		}
		if w := h.exited(old.Pid); w.Exit != "killed by SIGKILL" || w.Cause != "" {
			t.Errorf("%+v", w)
		}
		h.others(1, before)
	}
	if st := h.status(); st.Restarts != 0 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
	// Of a place in which there are two, nobody knows who is meant.
	end := h.hold()
	h.get("/")
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	workers := h.status().Workers
	i := slices.IndexFunc(workers, func(w workerset.Worker) bool { return w.State == "draining" && w.Active > 0 })
	if i < 0 {
		t.Fatal(h.story())
	}
	drains := workers[i]
	if err := h.set.KillWorker(h.ctx(), web(drains.Slot)); !errors.Is(err, workerset.ErrAmbiguous) || !strings.Contains(err.Error(), "pid "+itoa(drains.Pid)+" of generation 1 is draining") {
		t.Error(err)
	}
	if err := h.set.KillWorker(h.ctx(), workerset.Which{Pid: drains.Pid}); err != nil {
		t.Error(err)
	}
	if _, err := end(); err == nil {
		t.Error("what it served went on")
	}
}

// TestActsGivenAway: nothing is done about workers that may be somebody else's.
func TestActsGivenAway(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	e, err := h.set.Yield(h.ctx())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	for name, err := range map[string]error{
		"restart": h.set.RestartWorker(h.ctx(), web(1)), "drain": h.set.DrainWorker(h.ctx(), web(1)),
		"kill": h.set.KillWorker(h.ctx(), web(1)), "scale": h.set.Scale(h.ctx(), "web", 2),
	} {
		if !errors.Is(err, workerset.ErrGivenAway) {
			t.Errorf("%s: %v", name, err)
		}
	}
	h.set.Resume()
	if n := len(h.started()); n != 1 || h.status().Count != 1 {
		t.Errorf("%d workers were started", n)
	}
	if err := h.set.RestartWorker(h.ctx(), web(1)); err != nil {
		t.Error(err)
	}
}
