//go:build linux

package workerset_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestGroupAfter: groups start after those that they need, and stop before them; the
// death of one of these holds nobody up.
func TestGroupAfter(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ready")
	for trial, name := range map[bool]string{false: "set", true: "trial"} {
		t.Run(name, func(t *testing.T) {
			os.Remove(file)
			agent := foreigners(t, "agent", "catch;wait "+file+";notify READY=1;term;exit 0")
			agent.Ready.By = workerset.ReadyNotify
			agent.Sockets, agent.Count = []string{}, 2
			last := shell("last", "")
			last.After, last.Sockets = []string{"web"}, []string{}
			h := newSet(t, func(c *workerset.Config) {
				c.Trial = trial
				c.Groups[0].After, c.Groups[0].Count = []string{"agent"}, 2
				c.Groups = slices.Insert(append(c.Groups, agent), 0, last)
			}).start()
			h.news.await(t, workerset.EventOnline, "agent", 1)
			if g := h.group("web"); len(g.Workers) != 0 || fmt.Sprint(g.WaitsFor) != "[agent]" {
				t.Errorf("%+v", g)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := h.set.Ready(h.ctx()); err != nil {
				t.Fatal(err)
			}
			if trial {
				if got := len(h.group("web").Workers); got != 1 {
					t.Errorf("%d workers in a trial", got)
				}
				if err := h.set.Commit(h.ctx(), workerset.Estate{}); err != nil {
					t.Fatal(err)
				}
				if err := h.set.Ready(h.ctx()); err != nil {
					t.Fatal(err)
				}
			}
			// In the agent's turn, whichever of its two was first.
			first := min(h.news.index(t, workerset.EventReady, "agent", 1), h.news.index(t, workerset.EventReady, "agent", 2))
			if got := h.news.index(t, workerset.EventFork, "web", 1); got < first {
				t.Error("web has started before an agent was ready")
			}
			if h.news.index(t, workerset.EventFork, "last", 1) < h.news.index(t, workerset.EventReady, "web", 1) &&
				h.news.index(t, workerset.EventFork, "last", 1) < h.news.index(t, workerset.EventReady, "web", 2) {
				t.Error("last has started before web was ready")
			}

			// Now the agents can't come up any more, and web goes on without them.
			os.Remove(file)
			for _, w := range h.group("agent").Workers {
				_ = syscall.Kill(w.Pid, syscall.SIGKILL)
				h.exited(w.Pid)
			}
			h.news.await(t, workerset.EventFork, "agent", 4)
			if err := syscall.Kill(h.group("web").Workers[0].Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.news.await(t, workerset.EventReady, "web", 3)
			if st, err := h.set.Status(h.ctx()); err != nil {
				t.Error(err)
			} else if ready, why := st.Ready(); !ready { // nobody comes to an agent
				t.Error(why)
			}
			if err := os.WriteFile(file, nil, 0o600); err != nil {
				t.Fatal(err)
			}
			if err := h.set.Ready(h.ctx()); err != nil {
				t.Fatal(err)
			}

			end := h.hold()
			h.set.Stop()
			h.news.await(t, workerset.EventExit, "last", 1)
			h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "draining" })
			for _, w := range h.group("agent").Workers {
				if w.State != "serving" {
					t.Errorf("agent/%d is %s while web drains", w.Slot, w.State)
				}
			}
			if _, err := end(); err != nil {
				t.Error(err)
			}
			h.stop()
			var order []string
			for _, ev := range h.news.events {
				if ev.Kind == workerset.EventExit && ev.Voluntary {
					order = append(order, ev.Group)
				}
			}
			if got := strings.Join(order, " "); got != "last web web agent agent" {
				t.Errorf("they ended in the order %s:\n%s", got, h.story())
			}
		})
	}
}

// TestGroupsKilled: at once is at once for all.
func TestGroupsKilled(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].After = []string{"agent"}
		agent := shell("agent", "")
		agent.Sockets = []string{}
		c.Groups = append(c.Groups, agent)
	}).serve()
	end := h.hold() // which nobody finishes
	h.set.Stop()
	h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "draining" })
	h.set.Kill()
	_, killed := h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "agent" && c.Worker.State == "killing" })
	_, ended := h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "exited" })
	if killed > ended {
		t.Error("the agent was killed when web had ended")
	}
	<-h.ended
	if _, err := end(); err == nil {
		t.Error("the request was answered")
	}
}

// TestGroupAfterGap: a group of which nobody is left keeps the order of its neighbours.
func TestGroupAfterGap(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	agent, middle := shell("agent", ""), shell("middle", "test -e "+file+" || exit 1")
	agent.Sockets, middle.Sockets, middle.After = []string{}, []string{}, []string{"agent"}
	middle.Ready.After = 200 * time.Millisecond
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].After = []string{"middle"}
		c.Groups = append(c.Groups, middle, agent)
	}).serve()
	end := h.hold()
	os.Remove(file)
	if err := syscall.Kill(h.group("middle").Workers[0].Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "nobody is left in the middle", func() bool {
		g := h.group("middle")
		return len(g.Workers) == 0 && len(g.Waiting) == 1 && g.Waiting[0].Failures >= 4
	})
	h.set.Stop()
	h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "draining" })
	if ws := h.group("agent").Workers; len(ws) != 1 || ws[0].State != "serving" {
		t.Errorf("%+v", ws)
	}
	if _, err := end(); err != nil {
		t.Error(err)
	}
	h.stop()
}

// TestGroupAfterFails: what a trial fails of is said, also by those that wait.
func TestGroupAfterFails(t *testing.T) {
	t.Parallel()
	agent := shell("agent", "echo no luck; exit 3")
	agent.Sockets, agent.Ready.By = []string{}, workerset.ReadyNotify
	h := newSet(t, func(c *workerset.Config) {
		c.Trial = true
		c.Groups[0].After = []string{"agent"}
		c.Groups = append(c.Groups, agent)
	}).start()
	if err := h.set.Ready(h.ctx()); err == nil || !strings.Contains(err.Error(), "agent/1: exit at start: exit status 3; its last output:\nno luck") {
		t.Error(err)
	}
	h = newSet(t, func(c *workerset.Config) {
		c.Groups[0].After = []string{"agent"}
		c.Groups = append(c.Groups, agent)
	}).start()
	if err := h.set.Ready(h.ctx()); !errors.Is(err, workerset.ErrRollStopped) || !strings.Contains(err.Error(), "agent/1 is empty after 3 tries") {
		t.Error(err)
	}
}
