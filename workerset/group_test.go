//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/workerset"
)

// shell is a group of a program that says who it is and does as it is told by its
// script.
func shell(name, script string, args ...string) workerset.Group {
	return workerset.Group{
		Name: name, Count: 1, Args: args,
		Program: &workerset.Program{Path: "/bin/sh", Args: []string{"-c", script + "\nexec sleep 1000", "sh"}},
		Ready:   workerset.Readiness{By: workerset.ReadyDelay, After: 1},
	}
}

// foreigners is a group of programs that know nothing of this module; see foreignMain.
func foreigners(t *testing.T, name, steps string) workerset.Group {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return workerset.Group{Name: name, Count: 1, Env: []string{foreign(steps)}, Program: &workerset.Program{Path: self}}
}

func add(groups ...workerset.Group) func(*workerset.Config) {
	return func(c *workerset.Config) { c.Groups = append(c.Groups, groups...) }
}

// group is one of the set's, by name.
func (h *harness) group(name string) workerset.GroupStatus {
	h.t.Helper()
	st, err := h.set.Status(h.ctx())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, g := range st.Groups {
		if g.Name == name {
			return g
		}
	}
	h.t.Fatalf("there is no group %s in %+v", name, st)
	return workerset.GroupStatus{}
}

// TestGroupPrograms: each group has its own program, arguments, environment, sockets
// and count, and its workers are told apart in ps.
func TestGroupPrograms(t *testing.T) {
	t.Parallel()
	say := `echo $HANDOVER_WORKER "$@" $COLOUR $LISTEN_FDS $LISTEN_FDNAMES`
	https, http := shell("https", say, "--use", "https"), shell("http", say, "--use", "http")
	https.Env, http.Env = []string{"COLOUR=blue"}, []string{"COLOUR=red"}
	http.Count, http.Sockets = 2, []string{"http"}
	https.Sockets = []string{}
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Program = &workerset.Program{Args: []string{"own", "arguments"}, Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")}
		c.Groups[0].Args = []string{"and", "more"}
		c.Groups = append(c.Groups, https, http)
	}).serve()
	for _, line := range []string{
		"https/1 | https/1/1/1 --use https blue 0\n", "http/1 | http/1/1/1 --use http red 1 http\n", "http/2 | http/2/2/1 --use http red 1 http\n",
	} {
		h.printed(line)
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", h.group("web").Workers[0].Pid))
	if want := "test: worker web/1\x00own\x00arguments\x00and\x00more\x00"; err != nil || string(b) != want {
		t.Errorf("in ps: %q, %v, not %q", b, err, want)
	}
	if g := h.group("https"); len(g.Sockets) != 0 || g.Count != 1 {
		t.Errorf("%+v", g)
	}
	if h.get("/") != itoa(h.group("web").Workers[0].Pid) {
		t.Error("somebody else answers")
	}
}

// TestGroupSockets: each worker has a socket of its own, as many as there are.
func TestGroupSockets(t *testing.T) {
	t.Parallel()
	one, addr := heldSocket(t)
	two, _ := heldSocket(t)
	h := newForeign(t, "env HANDOVER_WORKER;env LISTEN_FDNAMES;notify READY=1", func(c *workerset.Config) {
		c.Sockets["admin-1"], c.Sockets["admin-2"] = one, two
		c.Groups[0].Count, c.Groups[0].Sockets = 2, []string{"http", "admin-{slot}"}
	}).serve()
	h.printed("web/1 | LISTEN_FDNAMES http:admin-1\n")
	h.printed("web/2 | LISTEN_FDNAMES http:admin-2\n")
	if ev := h.news.wait(t, func(ev workerset.Event) bool { return ev.Socket == "admin-1" }); ev.Slot != 1 || ev.Addr != addr {
		t.Errorf("%+v", ev)
	}
	for _, err := range []error{
		h.set.Scale(h.ctx(), "web", 3),
		func() error { _, err := h.set.ScaleBy(h.ctx(), "web", 1); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), "scale web to 3: there are sockets of their own for 2 workers") {
			t.Error(err)
		}
	}
	if got := h.group("web").Count; got != 2 {
		t.Errorf("the count is %d", got)
	}
}

// TestGroupUser: workers run as somebody else, programs and those of this binary.
func TestGroupUser(t *testing.T) {
	t.Parallel()
	if !launch.MayChangeUser() {
		t.Skip("not root")
	}
	user := &workerset.User{UID: 65534, GID: 65533, Groups: []uint32{65532}}
	program := shell("program", `echo $(id -u) $(id -g) $(id -G) $(ulimit -Hn)`)
	program.User = user
	hard := launch.Limit{Soft: 2 << 20, Hard: 2 << 20} // that only root may set, perhaps
	program.Program.Limits = map[string]launch.Limit{"core": hard}
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].User = user
		c.Groups = append(c.Groups, program)
	}).serve()
	h.printed("program/1 | 65534 65533 65533 65532 ")
	pid := h.group("web").Workers[0].Pid
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	status := strings.Join(strings.Fields(string(b)), " ")
	for _, want := range []string{"Uid: 65534 65534 65534 65534 ", "Gid: 65533 65533 65533 65533 ", "Groups: 65532 "} {
		if err != nil || !strings.Contains(status, want) {
			t.Errorf("%q is not in %s, %v", want, status, err)
		}
	}
	if h.get("/") != itoa(pid) {
		t.Error("it does not answer")
	}
}

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
			}
			h.news.await(t, workerset.EventFork, "agent", 3)
			if err := syscall.Kill(h.group("web").Workers[0].Pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			h.news.await(t, workerset.EventReady, "web", 3)
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
				t.Errorf("they ended in the order %s", got)
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

// TestGroupSilent: nothing of what it prints is passed on, and yet it is known why it
// failed.
func TestGroupSilent(t *testing.T) {
	t.Parallel()
	quiet := shell("quiet", "")
	quiet.Program.Args[1] = "echo not for you; echo nor this >&2; exit 1"
	quiet.Silent, quiet.Sockets, quiet.Ready.By = true, []string{}, workerset.ReadyNotify
	loud := shell("loud", "")
	loud.Program.Args[1] = "echo for all; exec sleep 1000"
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Silent = true
		c.Groups[0].Env = []string{do("always:prints")}
		c.Groups = append(c.Groups, quiet, loud)
	}).start()
	h.wait(0, func(c workerset.Change) bool {
		return c.Worker.Group == "quiet" && strings.Contains(c.Worker.Reason, "its last output:\nnot for you\nnor this")
	})
	h.wait(0, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "serving" })
	h.printed("for all")
	h.stop()
	b, err := os.ReadFile(h.out)
	if err != nil || string(b) != "loud/1 | for all\n" {
		t.Errorf("%q, %v", b, err)
	}
}

// TestSetup: changed settings are for workers that are started from then on.
func TestSetup(t *testing.T) {
	t.Parallel()
	say := foreigners(t, "say", "print says one;catch;notify READY=1;term;exit 0")
	say.DrainSignal, say.Sockets = syscall.SIGUSR2, []string{}
	h := newSet(t, add(say)).serve()
	h.printed("says one\n")
	changed := say
	changed.Env = []string{foreign("print says two;catch;notify READY=1;term;exit 0")}
	changed.Count, changed.DrainSignal, changed.After = 7, syscall.SIGTERM, []string{"nobody"}
	if err := h.set.Setup(h.ctx(), changed); err != nil {
		t.Fatal(err)
	}
	if g := h.group("say"); g.Count != 1 || len(g.Workers) != 1 || g.Workers[0].ID != 1 {
		t.Errorf("%+v", g)
	}
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	h.printed("says two\n")
	h.printed("got user defined signal 2\n") // by the signal that it was started to expect
	bad := changed
	bad.Sockets = []string{"nothing"}
	if err := h.set.Setup(h.ctx(), bad); !errors.Is(err, workerset.ErrConfig) || !strings.Contains(err.Error(), `group "say": there is no socket "nothing"`) {
		t.Error(err)
	}
	if err := h.set.Setup(h.ctx(), workerset.Group{Name: "nobody"}); !errors.Is(err, workerset.ErrNoGroup) {
		t.Error(err)
	}
	h.stop()
	if err := h.set.Setup(context.Background(), changed); !errors.Is(err, workerset.ErrEnded) {
		t.Error(err)
	}
}

// TestGroupsOverUpgrade: the next generation has other groups, in another order: those
// that are gone are drained as they wished, and those that stay are replaced.
func TestGroupsOverUpgrade(t *testing.T) {
	t.Parallel()
	gone := foreigners(t, "gone", "catch;notify READY=1;term;exit 0")
	gone.DrainSignal = syscall.SIGUSR2
	stays := shell("stays", `echo old "$@"`, "arguments")
	h := newSet(t, func(c *workerset.Config) {
		c.Groups = append(c.Groups, gone, stays)
		c.Groups[0].After = []string{"gone"}
	}).serve()
	added := shell("added", "")
	stays = shell("stays", `echo new "$@"`, "ones")
	stays.Count = 2
	added.After = []string{"stays"}
	next := newSetOn(t, h.sock, h.addr, func(c *workerset.Config) {
		c.Generation, c.Trial = 2, true
		c.Groups = []workerset.Group{added, c.Groups[0], stays}
	}).serve()
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	next.printed("got user defined signal 2\n")
	next.printed("new ones\n")
	st, err := next.set.Status(next.ctx())
	got := ""
	for _, g := range st.Groups {
		got += fmt.Sprintf("%s=%d/%d ", g.Name, len(g.Workers), g.Count)
	}
	if err != nil || got != "added=1/1 web=1/1 stays=2/2 " {
		t.Errorf("%s, %v", got, err)
	}
	gone2 := next.news.wait(t, func(ev workerset.Event) bool { return ev.Group == "gone" && ev.Kind == workerset.EventExit })
	if !gone2.Voluntary || gone2.Generation != 1 {
		t.Errorf("%+v", gone2)
	}
}

// TestBadGroups: what can't work is said before anything is started.
func TestBadGroups(t *testing.T) {
	t.Parallel()
	g := func(change func(*workerset.Group)) []workerset.Group {
		web := workerset.Group{Name: "web", Count: 2}
		change(&web)
		return []workerset.Group{web, {Name: "agent", Count: 1}}
	}
	for _, c := range []struct {
		groups []workerset.Group
		want   string
	}{
		{g(func(g *workerset.Group) {}), ""},
		{g(func(g *workerset.Group) { g.After = []string{"agent"} }), ""},
		{g(func(g *workerset.Group) { g.After = []string{"nobody"} }), `group "web": it goes after "nobody"`},
		{g(func(g *workerset.Group) { g.After = []string{"web"} }), `group "web": it can't start`},
		{g(func(g *workerset.Group) { g.Name = "agent" }), `group "agent" is there twice`},
		{g(func(g *workerset.Group) { g.Name = "a/b" }), `group name "a/b"`},
		{g(func(g *workerset.Group) { g.Count = -1 }), `group "web": count -1`},
		{g(func(g *workerset.Group) { g.Sockets = []string{"admin"} }), `group "web": there is no socket "admin"`},
		{g(func(g *workerset.Group) { g.Sockets = []string{"own-{slot}"} }), `group "web": there is no socket "own-2" for slot 2`},
		{g(func(g *workerset.Group) { g.Sockets = []string{"own-{slot}", "own-1"} }), `group "web": socket "own-1" is there twice`},
		{g(func(g *workerset.Group) {
			g.Count, g.Sockets, g.Queues = 1, []string{"own-{slot}"}, map[string]workerset.Queue{"own-1": {}}
		}), `group "web": a queue for socket "own-1"`},
		{g(func(g *workerset.Group) { g.MaxRestarts = -1 }), `group "web": -1 restarts`},
		{g(func(g *workerset.Group) { g.RestartWindow = -1 }), `group "web": 0 restarts in -1ns`},
		{g(func(g *workerset.Group) { g.Program = &workerset.Program{Path: "/no/such/thing"} }), `group "web": program: stat /no/such/thing`},
		{g(func(g *workerset.Group) { g.User = &workerset.User{UID: ^uint32(0)} }), `group "web": user 4294967295:0`},
	} {
		err := workerset.ValidateGroups(c.groups, []string{"http", "own-1"})
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (!errors.Is(err, workerset.ErrConfig) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}

// TestScaledBeyond: what was scaled at run time is not kept where the next generation
// has not the sockets for it.
func TestScaledBeyond(t *testing.T) {
	t.Parallel()
	sockets := map[string]int{}
	for i := 1; i <= 3; i++ {
		sockets["own-"+itoa(i)], _ = heldSocket(t)
	}
	own := func(n int) func(*workerset.Config) {
		return func(c *workerset.Config) {
			g := shell("own", "")
			g.Sockets = []string{"own-{slot}"}
			for i := 1; i <= n; i++ {
				c.Sockets["own-"+itoa(i)] = sockets["own-"+itoa(i)]
			}
			c.Groups[0].Sockets = []string{"http"}
			c.Groups = append(c.Groups, g)
		}
	}
	h := newSet(t, own(3)).serve()
	if err := h.set.Scale(h.ctx(), "own", 3); err != nil {
		t.Fatal(err)
	}
	next := h.trial(own(2))
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if g := next.group("own"); g.Count != 1 || len(g.Workers) == 0 {
		t.Errorf("%+v", g)
	}
}

// TestProgramNamed: by which name and where a program is executed, and that what it
// prints goes through as it is.
func TestProgramNamed(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	named := foreigners(t, "named", "print as it is;catch;notify READY=1;term;exit 0")
	named.Program.Name, named.Program.Dir, named.Program.Args = "another name", dir, []string{"-x"}
	h := newSet(t, func(c *workerset.Config) {
		c.Output = workerset.OutputRaw
		c.Groups = append(c.Groups, named)
	}).serve()
	pid := h.group("named").Workers[0].Pid
	cmdline, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
	if err != nil || string(cmdline) != "another name\x00-x\x00" {
		t.Errorf("%q, %v", cmdline, err)
	}
	if cwd, err := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid)); err != nil || cwd != dir {
		t.Errorf("it is in %q, %v", cwd, err)
	}
	h.stop()
	if b, err := os.ReadFile(h.out); err != nil || string(b) != "as it is\ngot terminated\n" {
		t.Errorf("%q, %v", b, err)
	}
}
