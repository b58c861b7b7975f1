package workerset_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/home"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/workerset"
)

// These tests are what docs/security.md says of workers that are somebody else's by now.

const (
	envChild = "TEST_CHILD" // is set in what a worker starts
	// envOther names a group that a worker says it is of.
	envOther = "TEST_OTHER"
	// maxReports is workerset's.
	maxReports = 10_000
)

func init() {
	hostile["lists its descriptors"] = func(c channel) {
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			panic(err)
		}
		for _, e := range list {
			fd, _ := strconv.Atoi(e.Name())
			link, err := os.Readlink("/proc/self/fd/" + e.Name())
			if flags, ferr := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && ferr == nil && (flags&unix.FD_CLOEXEC == 0 || fd == int(c.Fd())) {
				fmt.Printf("descriptor %s %d %s\n", os.Getenv(wire.EnvWho), fd, link)
			}
		}
		fmt.Println("no more of", os.Getenv(wire.EnvWho))
		c.say(state(wire.PhaseReady))
		c.untilEOF()
	}
	// Says what only its parent may, and that it is somebody else.
	hostile["plays the parent"] = func(c channel) {
		for _, cmd := range []string{
			`GO"`, `HOLD"`, `FORGIVE"`, `EXIT"`, `STOPPING"`, `WHO","mail":true,"n":1`, `DRAIN","timeout":1,"stop":true`, `MOVES","do":"give"`,
			`CONNECT","socket":"http"`, `SERVICE","generation":9,"ready":true`, `SENT","n":1`, `UPGRADE"`, `COMMIT","generation":9`,
		} {
			c.say(`{"cmd":"NODE_HANDOVER_` + cmd + "}\n")
		}
		c.say(`{"cmd":"NODE_HANDOVER_STATE","v":2,"pid":1,"id":1,"group":"other","slot":1,"generation":7,"phase":"ready"}` + "\n")
		c.say(`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"parent"},"from":{"group":"other","slot":1,"id":1,"generation":1},"type":"from","data":{}}` + "\n")
		c.untilEOF()
	}
	// Reports where its parent should find it, again and again, and that it is of another group.
	hostile["comes home as another"] = func(c channel) {
		c.say(state(wire.PhaseReady))
		fd, _ := strconv.Atoi(strings.Fields(os.Getenv(wire.EnvHome))[0])
		door, err := home.OpenDoor(fd)
		if err != nil {
			panic(err)
		}
		_, theirs, err := wire.Pair()
		if err != nil {
			panic(err)
		}
		if os.Getenv(envChild) == "" { // first by somebody who has no place yet
			f := os.NewFile(uintptr(fd), "home")
			p, err := os.StartProcess("/proc/self/exe", []string{"child"}, &os.ProcAttr{
				Env:   launch.Environ(append(os.Environ(), envChild+"=1", wire.Env+"=3", wire.EnvHome+"=4")),
				Files: []*os.File{os.Stdin, os.Stdout, os.Stderr, c.File, f},
			})
			if err == nil {
				_, err = p.Wait()
			}
			if err != nil {
				panic(err)
			}
		}
		for n := 0; os.Getenv(envChild) != "1" || n < 10; n++ {
			r := home.Report{Group: os.Getenv(envOther), Slot: 1, ID: 9, Generation: 1}
			if err := door.Send(r, map[string]*os.File{home.Channel: theirs}, time.Now().Add(time.Second)); err != nil {
				fmt.Println("nobody hears it any more")
				c.untilEOF()
				return
			}
		}
	}
	// Makes the pipe block by which its output is read, and leaves somebody behind who keeps
	// it open.
	hostile["blocks its output"] = func(c channel) {
		c.say(state(wire.PhaseReady))
		for _, entry := range strings.Fields(os.Getenv(wire.EnvHome))[1:] {
			_, number, _ := strings.Cut(entry, "=")
			fd, err := strconv.Atoi(number)
			if err == nil {
				err = unix.SetNonblock(fd, false)
			}
			if err != nil {
				panic(err)
			}
		}
		p, err := os.StartProcess("/bin/sleep", []string{"sleep", "1000"}, &os.ProcAttr{Files: []*os.File{nil, os.Stdout, os.Stderr}})
		if err != nil {
			panic(err)
		}
		fmt.Println("child", p.Pid)
		_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	}
	// Says as much as it can: failures with long reasons, unknown commands, and junk that is JSON.
	hostile["floods"] = func(c channel) {
		go c.untilEOF()
		st := wire.State{Cmd: wire.CmdState, Version: wire.Version, Phase: wire.PhaseServing, Cause: wire.CauseError, Reason: strings.Repeat("r", 512<<10)}
		c.say(state(wire.PhaseReady))
		junk := `{"cmd":"NODE_HANDOVER_NEWS","x":"` + strings.Repeat("x", 900<<10) + `"}` + "\n" + `{"a":[` + strings.Repeat("[],", 200<<10) + "[]]}\n" +
			strings.Repeat(`{"cmd":"NODE_HANDOVER_DONE","n":5}`+"\n", 1000)
		for st.Nth = 1; ; st.Nth++ {
			b, err := json.Marshal(st)
			if err != nil {
				panic(err)
			}
			c.say(string(b) + "\n" + junk)
		}
	}
}

// homes gives each group a home, until the test's end.
func homes(t *testing.T, c *workerset.Config) {
	t.Helper()
	for i := range c.Groups {
		ends, err := workerset.NewHome()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(ends[0]); unix.Close(ends[1]) })
		c.Groups[i].Home = workerset.Home{Report: ends[0], Hear: ends[1]}
	}
}

// inode is what links in /proc/PID/fd call a descriptor.
func inode(t *testing.T, fd int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// TestWorkerDescriptors: a worker has what is its, in this order, and nothing else: no other
// group's sockets, queues, home, or keys, and nothing of its parent.
func TestWorkerDescriptors(t *testing.T) {
	noLeak(t)
	// What whoever started the tests has left open for them; a parent does so, too.
	if err := unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	other, _ := heldSocket(t)
	var cfg workerset.Config
	keys := map[string]*os.File{}
	h := newSet(t, func(c *workerset.Config) {
		second := c.Groups[0]
		second.Name = "admin"
		program := shell("program", `ls -l /proc/$$/fd; echo no more of program`)
		c.Groups = append(c.Groups, second)
		c.Sockets["admin"] = other
		for i, socket := range []string{"http", "admin"} {
			g := &c.Groups[i]
			f, err := launch.MemoryFile("keys of " + g.Name)
			if err != nil {
				t.Fatal(err)
			}
			keys[g.Name] = f
			t.Cleanup(func() { f.Close() })
			p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(p[0]); unix.Close(p[1]) })
			g.Sockets, g.Env, g.DrainTimeout = []string{socket}, []string{do("always:lists its descriptors")}, time.Millisecond
			g.Queues = map[string]workerset.Queue{socket: {Give: p[0], Take: p[1]}}
			if g.Tickets, err = launch.Fd(f); err != nil {
				t.Fatal(err)
			}
		}
		homes(t, c)
		program.Sockets = []string{"admin"}
		c.Groups = append(c.Groups, program)
		cfg = *c
	}).start()
	for _, who := range []string{"web/1/1/1", "admin/1/1/1", "program"} {
		h.printed("no more of " + who + "\n")
	}
	b, err := os.ReadFile(h.out)
	if err != nil {
		t.Fatal(err)
	}
	has := map[string][]string{}
	for _, m := range regexp.MustCompile(`(?m)descriptor (\S+) (\d+) (.*)$`).FindAllStringSubmatch(string(b), -1) {
		who, _, _ := strings.Cut(m[1], "/")
		has[who] = append(has[who], m[2]+" "+m[3])
	}
	for _, m := range regexp.MustCompile(`(?m)^program/1 \| .* (\d+) -> (.*)$`).FindAllStringSubmatch(string(b), -1) {
		has["program"] = append(has["program"], m[1]+" "+m[2])
	}
	for i, name := range []string{"web", "admin"} {
		g := cfg.Groups[i]
		q := g.Queues[g.Sockets[0]]
		want := []string{"/dev/null", h.out, h.out, inode(t, cfg.Sockets[g.Sockets[0]]), "its channel", "its crash",
			inode(t, q.Give), inode(t, q.Take), inode(t, g.Tickets), inode(t, g.Home.Report)}
		if len(has[name]) != len(want) {
			t.Errorf("%s has\n%s", name, strings.Join(has[name], "\n"))
			continue
		}
		for fd, link := range want {
			switch got := has[name][fd]; link {
			case "its channel":
				link = "socket:["
			case "its crash":
				link = "/memfd:crash:" + name + "/1"
			default:
				if got != fmt.Sprint(fd, " ", link) {
					t.Errorf("%s has %s, not %s", name, got, link)
				}
				continue
			}
			if got := has[name][fd]; !strings.HasPrefix(got, fmt.Sprint(fd, " ", link)) {
				t.Errorf("%s has %s, not %s", name, got, link)
			}
		}
	}
	program := has["program"]
	for fd, want := range []string{"/dev/null", "pipe:", "pipe:", inode(t, other), "socket:[", "/memfd:crash:program/1"} {
		if fd >= len(program) || !strings.HasPrefix(program[fd], fmt.Sprint(fd, " ", want)) {
			t.Errorf("the program has\n%s", strings.Join(program, "\n"))
			break
		}
	}
	if len(program) != 6 {
		t.Errorf("the program has\n%s", strings.Join(program, "\n"))
	}
	h.stop()
}

// TestPlaysTheParent: what a parent says means nothing when a worker says it, and who a worker
// is, its parent knows better.
func TestPlaysTheParent(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		second := c.Groups[0]
		second.Name = "other"
		c.Groups[0].Env, c.Groups[0].DrainTimeout = []string{do("plays the parent")}, time.Millisecond
		c.Groups = append(c.Groups, second)
	})
	from := make(chan message.Sender, 1)
	h.set.Messages().Handle("from", func(_ context.Context, m *message.Message) (any, error) { from <- m.From; return nil, nil })
	h.start()
	w, _ := h.wait(0, func(ch workerset.Change) bool { return ch.Worker.Group == "web" && ch.Worker.State == "serving" })
	h.wait(0, func(ch workerset.Change) bool { return ch.Worker.Group == "other" && ch.Worker.State == "serving" })
	if got := <-from; got != (message.Sender{Group: "web", Slot: 1, ID: 1, Generation: 1}) {
		t.Errorf("a message of %+v", got)
	}
	for _, g := range []string{"web", "other"} {
		st := h.group(g)
		if len(st.Workers) != 1 || st.Workers[0].Group != g || st.Workers[0].State != "serving" || st.Workers[0].Generation != 1 || st.Failures != 0 {
			t.Errorf("%s: %+v", g, st)
		}
	}
	if st := h.group("web"); w.Worker.Pid == 1 || st.Workers[0].Pid != w.Worker.Pid {
		t.Errorf("%+v", st)
	}
	h.stop()
}

// TestReportOfAnotherGroup: a worker has the home of its own group alone, and what it says there
// of another one is not believed; and it is not listened to without end.
func TestReportOfAnotherGroup(t *testing.T) {
	t.Parallel()
	for _, other := range []string{"admin", "no such group"} {
		t.Run(other, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, func(c *workerset.Config) {
				second := c.Groups[0]
				second.Name = "admin"
				c.Groups[0].Env, c.Groups[0].DrainTimeout = []string{do("comes home as another"), envOther + "=" + other}, time.Millisecond
				c.Groups = append(c.Groups, second)
				homes(t, c)
			}).start()
			h.printed("nobody hears it any more\n")
			for _, ch := range h.all() {
				if ch.Worker.ID != 1 || ch.Worker.State == "exited" {
					t.Errorf("%+v", ch.Worker)
				}
			}
			all, err := h.set.Status(h.ctx())
			if err != nil || len(all.Groups) != 2 {
				t.Errorf("%+v, %v", all, err)
			}
			log := h.log.String()
			if !strings.Contains(log, `comes to the home of group \"web\" and says that it is of \"`+other) {
				t.Error("it is not told of")
			}
			if n := strings.Count(log, "is not taken over"); n != 64 {
				t.Errorf("told of %d times", n)
			}
			if !strings.Contains(log, fmt.Sprint("there were too many\" group=web reports=", maxReports)) {
				t.Error("it does not say that it hears no more")
			}
			h.stop()
		})
	}
}

// TestReportOfItself: a worker that has a parent can't have a second place in its group.
func TestReportOfItself(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Env, c.Groups[0].DrainTimeout = []string{do("comes home as another"), envOther + "=web", envChild + "=none"}, time.Millisecond
		homes(t, c)
	}).start()
	h.printed("nobody hears it any more\n")
	if st := h.group("web"); len(st.Workers) != 1 || st.Workers[0].ID != 1 || st.Failures != 0 {
		t.Errorf("%+v", st)
	}
	if log := h.log.String(); !strings.Contains(log, `reason="it has one"`) || strings.Count(log, "is not taken over") != 64 {
		t.Error("it is not told of, or without end")
	}
	h.stop()
}

// TestBlockedOutput: a worker shares the pipe by which its parent reads what it prints, and can
// do nothing to how the parent reads.
func TestBlockedOutput(t *testing.T) {
	t.Parallel()
	printed := keepLines()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Env = []string{do("blocks its output")}
		c.Groups[0].KeepOutput, c.Printed = true, printed.add
		homes(t, c)
	}).start()
	h.state(2, "serving")
	printed.mu.Lock()
	all := strings.Join(printed.list, "\n")
	printed.mu.Unlock()
	m := regexp.MustCompile(`child (\d+)`).FindStringSubmatch(all)
	if m == nil {
		t.Fatalf("no child: %s", all)
	}
	h.get("/")
	child, _ := strconv.Atoi(m[1])
	if err := syscall.Kill(child, syscall.SIGKILL); err != nil {
		t.Error(err)
	}
	if _, err := unix.Wait4(child, nil, 0, nil); err != nil && !errors.Is(err, unix.ECHILD) {
		t.Error(err)
	}
	h.stop()
}

// TestFlood: a worker that says as much as it can costs a CPU, and little memory; it holds up
// nobody else, and ends when it is told to.
func TestFlood(t *testing.T) {
	h := newSet(t, func(c *workerset.Config) {
		second := c.Groups[0]
		second.Name = "other"
		c.Groups[0].Env, c.Groups[0].DrainTimeout, c.Groups[0].Sockets = []string{do("always:floods")}, time.Millisecond, []string{}
		c.Groups = append(c.Groups, second)
	}).start() // and not both groups need ever serve at the same time
	for group, state := range map[string]string{"other": "serving", "web": "condemned"} {
		h.wait(0, func(ch workerset.Change) bool { return ch.Worker.Group == group && ch.Worker.State == state })
	}
	most := 0
	for range 20 { // others fail, and are replaced
		pid := h.group("other").Workers[0].Pid
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		until(t, "another one serves", func() bool {
			st := h.group("other")
			return len(st.Workers) == 1 && st.Workers[0].Pid != pid && st.Workers[0].State == "serving"
		})
		h.get("/")
		most = max(most, resident(t))
	}
	t.Logf("%d MiB at most", most>>20)
	if most > 800<<20 { // under the race detector it is three times as much as without
		t.Errorf("%d MiB", most>>20)
	}
	h.stop()
}

// resident is how much memory this process has.
func resident(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.Fields(string(b))[1])
	if err != nil {
		t.Fatal(err)
	}
	return n * os.Getpagesize()
}

// TestNotifiedByAnother: the address of a program's notification socket is no secret, and
// another user can say nothing there.
func TestNotifiedByAnother(t *testing.T) {
	t.Parallel()
	if !launch.MayChangeUser() {
		t.Skip("not root")
	}
	h := newForeign(t, "notify READY=1\\nSTATUS=fine;env NOTIFY_SOCKET", nil).serve()
	h.printed("NOTIFY_SOCKET @")
	b, err := os.ReadFile(h.out)
	if err != nil {
		t.Fatal(err)
	}
	addr := regexp.MustCompile(`NOTIFY_SOCKET (\S+)`).FindStringSubmatch(string(b))[1]
	if list, err := os.ReadFile("/proc/net/unix"); err != nil || !strings.Contains(string(list), addr) {
		t.Errorf("it is not listed: %v", err)
	}
	say := func(uid uint32, text string) {
		t.Helper()
		cmd := exec.CommandContext(h.ctx(), "/proc/self/exe")
		cmd.Env = append(os.Environ(), foreign("notify "+text+";exit 0"), "NOTIFY_SOCKET="+addr, "GORACE=atexit_sleep_ms=0")
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("%v: %s", err, out)
		}
	}
	for _, text := range []string{"WATCHDOG=trigger", "STOPPING=1", `STATUS=not fine`, "WATCHDOG=1\\nWATCHDOG_USEC=1"} {
		say(65534, text)
	}
	say(0, "STATUS=root was here")
	until(t, "root is heard", func() bool { return h.group("web").Workers[0].Status == "root was here" })
	if w := h.group("web").Workers[0]; w.State != "serving" || w.ID != 1 {
		t.Errorf("%+v", w)
	}
	if n := strings.Count(h.log.String(), "notifications of another user are ignored"); n != 1 {
		t.Errorf("told of %d times", n)
	}
	h.stop()
}
