//go:build linux

package workerset_test

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

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
		c.Groups[0].User, c.Groups[0].Env = user, []string{do("may change user")}
		c.Groups = append(c.Groups, program)
	}).serve()
	h.printed("may change user: false\n")
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
		{g(func(g *workerset.Group) { g.Tickets = -1 }), `group "web": a file of session ticket keys at descriptor -1`},
		{g(func(g *workerset.Group) { g.MaxRestarts = -1 }), `group "web": -1 restarts`},
		{g(func(g *workerset.Group) { g.RestartWindow = -1 }), `group "web": 0 restarts in -1ns`},
		{g(func(g *workerset.Group) {
			g.Program = &workerset.Program{Path: "program", Limits: map[string]workerset.Limit{"files": {}}}
		}), `group "web": limit "files": unknown`},
		{g(func(g *workerset.Group) { g.Surge, g.Burst = -1, -1 }), "group \"web\": surge -1, must not be negative\ngroup \"web\": a burst of -1"},
		{g(func(g *workerset.Group) { g.Ready.By = workerset.ReadyNotify }), `group "web": readiness notify is for a program`},
		{g(func(g *workerset.Group) {
			g.Program, g.Sockets = &workerset.Program{Path: "program"}, []string{"local"}
			g.Ready = workerset.Readiness{By: workerset.ReadyHTTP, Path: "/"}
		}), `group "web": readiness http:/: socket "local": not a TCP socket`},
		{g(func(g *workerset.Group) { g.User = &workerset.User{UID: ^uint32(0)} }), `group "web": user 4294967295:0`},
	} {
		err := workerset.ValidateGroups(c.groups, map[string]string{"http": "tcp", "own-1": "tcp", "local": "unix"})
		switch {
		case c.want == "" && err != nil:
			t.Error(err)
		case c.want != "" && (!errors.Is(err, workerset.ErrConfig) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%v, not %q", err, c.want)
		}
	}
}

// TestProgramMissing: a program that is not there is said before anything is started, and
// of which group it is.
func TestProgramMissing(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{"/no/such/thing": "program: stat /no/such/thing", t.TempDir(): "it is a directory"} {
		c := workerset.Config{Groups: []workerset.Group{{Name: "web", Count: 1, Program: &workerset.Program{Path: path}}}}
		err := c.Validate()
		var f *workerset.FieldError
		if !errors.Is(err, workerset.ErrConfig) || !errors.As(err, &f) || f.Group != "web" || f.Field != "Path" || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
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
