package handover_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// groupsOf reads a service's groups from the file in TEST_GROUPS, which an upgrade may
// find changed, and logs their events.
func groupsOf(cfg *handover.Config) {
	file := os.Getenv("TEST_GROUPS")
	if file == "" {
		return
	}
	b, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(b, &cfg.Groups)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	for i, g := range cfg.Groups {
		if g.Agent {
			cfg.Groups[i].App = agentApp
		}
	}
	cfg.Events = func(ev workerset.Event) {
		slog.Info("event", "kind", string(ev.Kind), "group", ev.Group, "slot", ev.Slot, "gen", ev.Generation, "pid", ev.Pid,
			"cause", ev.Cause, "voluntary", ev.Voluntary, "by", os.Getpid())
	}
}

// agentApp is ready by itself, fails at WINCH in a goroutine of its own, and goes on.
func agentApp(ctx context.Context, w *worker.Worker) error {
	fail := make(chan os.Signal, 1)
	signal.Notify(fail, syscall.SIGWINCH)
	if len(w.Sockets()) > 0 {
		return errors.New("an agent with sockets")
	}
	w.Ready()
	for {
		select {
		case <-fail:
			w.Go(func(context.Context) error { panic("an agent without luck") })
		case <-ctx.Done():
			return nil
		}
	}
}

// grouped starts a service of groups, in JSON, and returns a function that changes
// them for the next generation.
func grouped(t *testing.T, groups string, env ...string) (*service, func(groups string)) {
	t.Helper()
	dir, err := os.MkdirTemp("", "groups") // that other users can read
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	file := filepath.Join(dir, "groups")
	set := func(groups string) {
		t.Helper()
		if err := errors.Join(os.Chmod(dir, 0o755), os.WriteFile(file, []byte(groups), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	set(groups)
	return startService(t, 2, append(env, "TEST_GROUPS="+file)...), set
}

// event waits for one in the log, from a place on, that has all of these words.
func (s *service) event(from int, words ...string) map[string]string {
	s.t.Helper()
	line, err := s.waitFrom(from, has(append(words, "msg=event")...))
	if err != nil {
		s.t.Fatalf("%v: %v", words, err)
	}
	attrs := map[string]string{}
	for _, m := range regexp.MustCompile(`(\w+)=("[^"]*"|\S*)`).FindAllStringSubmatch(line, -1) {
		attrs[m[1]] = m[2]
	}
	return attrs
}

// events are all in the log that have all of these words, as "KIND GROUP".
func (s *service) events(words ...string) (all []string) {
	for line := range strings.Lines(s.tail(100_000)) {
		if has(append(words, "msg=event")...)(line) {
			all = append(all, match(line, `kind=(\S+)`)+" "+match(line, `group=(\S+)`))
		}
	}
	return all
}

func (s *service) titles() (all []string) {
	s.t.Helper()
	ps, err := procs.Descendants(s.cmd.Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	for _, p := range ps {
		if p.State != 'Z' && len(p.Args) > 0 {
			all = append(all, strings.Join(p.Args, " "))
		}
	}
	slices.Sort(all)
	return all
}

// TestAgent: it starts first and stops last, over upgrades too; what fails in it is told
// and it stays; when it dies it is restarted, and no client notices any of this.
func TestAgent(t *testing.T) {
	s, _ := grouped(t, `[{"Name":"web"},{"Name":"agent","Agent":true}]`)
	if got := s.events("kind=ready", "group=agent"); len(got) != 1 {
		t.Fatalf("%v", got)
	}
	inOrder := func(generation string) {
		t.Helper()
		all := s.events("gen=" + generation + " ")
		if agent, web := slices.Index(all, "ready agent"), slices.Index(all, "fork web"); agent < 0 || web < agent {
			t.Errorf("generation %s: the agent is ready at %d, the first worker is started at %d, in %v", generation, agent, web, all)
		}
	}
	inOrder("1")
	want := []string{"service: worker agent/1", "service: worker web/1", "service: worker web/2"}
	if got := s.titles(); !slices.Equal(got[len(got)-3:], want) {
		t.Errorf("in ps: %q", got)
	}
	l := s.load(20)

	agent := s.event(0, "kind=fork", "group=agent")["pid"]
	pid, err := strconv.Atoi(agent)
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		from := s.mark()
		if err := syscall.Kill(pid, syscall.SIGWINCH); err != nil {
			t.Fatal(err)
		}
		if ev := s.event(from, "kind=error", "group=agent"); ev["pid"] != agent || ev["cause"] != "panic" {
			t.Errorf("%v", ev)
		}
		if _, err := s.waitFrom(from, has(`msg="worker failed and goes on"`, "worker=agent/1 ", "an agent without luck")); err != nil {
			t.Error(err)
		}
	}
	from := s.mark()
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ev := s.event(from, "kind=exit", "group=agent"); ev["pid"] != agent || ev["voluntary"] != "false" {
		t.Errorf("%v", ev)
	}
	if ev := s.event(from, "kind=ready", "group=agent"); ev["pid"] == agent {
		t.Errorf("%v", ev)
	}
	s.upgrade()
	inOrder("2")
	answered(t, l, "generation=2")
	if got := s.events("kind=exit", "group=agent", "voluntary=true"); len(got) > 1 {
		t.Errorf("%v", got)
	}
	s.event(0, "kind=exit", "group=agent", "gen=1 ", "voluntary=true")
	check(t, l)
	if got := s.events("kind=fork", "group=agent"); len(got) != 3 {
		t.Errorf("%d agents were started: the first one, after it had died, and after the upgrade", len(got))
	}
	s.stop()
	exits := s.events("kind=exit", "gen=2 ", "voluntary=true")
	if !slices.Equal(exits, []string{"exit web", "exit web", "exit agent"}) {
		t.Errorf("they ended in the order %v", exits)
	}
}

// TestGroups: groups of different programs, with their own arguments, sockets and
// counts, and an upgrade that adds, drops, changes and reorders them under load.
func TestGroups(t *testing.T) {
	node := program(t, "node")
	both := `"Sockets":["admin-{slot}"],"Workers":2,"Args":["--use","admin"]`
	s, set := grouped(t, fmt.Sprintf(`[{"Name":"agent","Agent":true},
		{"Name":"old","Workers":1,"Sockets":[]%s},
		{"Name":"admin",%s},
		{"Name":"web","Sockets":["http"]}]`, `,"Command":["/bin/sleep","1000"]`, both),
		"TEST_LISTEN=http=tcp://127.0.0.1:0,admin-1=tcp://"+freeAddr(t)+",admin-2=tcp://"+freeAddr(t)+",node=tcp://"+freeAddr(t))
	addrs := map[string]string{}
	for _, m := range regexp.MustCompile(`([a-z0-9-]+)=tcp://([0-9.:]+)`).FindAllStringSubmatch(s.await(has("msg=started")), -1) {
		addrs[m[1]] = m[2]
	}
	s.addr = addrs["http"]
	for slot, name := range []string{"admin-1", "admin-2"} {
		eventuallyHas(t, addrs[name], fmt.Sprintf("admin/%d ", slot+1))
	}
	if got := strings.Join(s.titles(), "\n"); !strings.Contains(got, "service: worker admin/2 --use admin") {
		t.Error(got)
	}
	l := s.loadOf(20, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1})
	admin, err := load.Start(t.Context(), load.Config{Addr: addrs["admin-2"], Rate: 10, Clients: map[load.Kind]int{load.New: 1}})
	if err != nil {
		t.Fatal(err)
	}
	command, err := json.Marshal(strings.Fields(node))
	if err != nil {
		t.Fatal(err)
	}
	from := s.mark()
	set(fmt.Sprintf(`[{"Name":"web","Sockets":["http"],"After":["js"]},
		{"Name":"js","Command":%s,"Sockets":["node"],"Workers":1},
		{"Name":"admin",%s},
		{"Name":"agent","Agent":true}]`, command, both))
	s.upgrade()
	answered(t, l, "generation=2")
	answered(t, admin, "admin/2 id=2 generation=2")
	eventuallyHas(t, addrs["node"], "js/1/1/2")
	if ev := s.event(from, "kind=exit", "group=old"); ev["voluntary"] != "true" {
		t.Errorf("%v", ev)
	}
	all := s.events("gen=2 ")
	if js, web := slices.Index(all, "ready js"), slices.Index(all, "fork web"); js < 0 || web < js {
		t.Errorf("js is ready at %d, the first worker is started at %d, in %v", js, web, all)
	}
	check(t, l)
	check(t, admin)

	// What can't work fails the upgrade, and nothing changes.
	for groups, why := range map[string]string{
		`[{"Name":"web","After":["nobody"]}]`:                                                `group \"web\": it goes after \"nobody\"`,
		`[{"Name":"web","Command":["no-such-program"]}]`:                                     `program \"no-such-program\"`,
		`[{"Name":"agent","Agent":true},{"Name":"a","Command":["/bin/false"]}]`:              `a/1: exit at start`,
		`[{"Name":"web"},{"Name":"a","Agent":true,"Command":["/bin/sleep"]}]`:                `an app and a command`,
		`[{"Name":"web","User":"nobody-of-that-name"}]`:                                      `there is no such user`,
		`[{"Name":"web","Sockets":["admin-{slot}"],"Workers":3}]`:                            `no socket \"admin-3\" for slot 3`,
		`[{"Name":"web","Workers":1},{"Name":"web"}]`:                                        `group \"web\" is there twice`,
		`[{"Name":"agent","Agent":true,"Workers":2}]`:                                        `2 workers, an agent is one`,
		`[{"Name":"x","After":["y"]},{"Name":"y","After":["z"]},{"Name":"z","After":["x"]}]`: `each waits for the next: x, y, z, x`,
	} {
		from := s.mark()
		set(groups)
		s.signal(syscall.SIGHUP)
		if line, err := s.waitFrom(from, has("level=ERROR", "nothing has changed")); err != nil || !strings.Contains(line, why) {
			t.Fatalf("%s: %v: %s", groups, err, line)
		}
	}
	eventuallyHas(t, s.addr, "generation=2")
	s.stop()
}

func eventuallyHas(t *testing.T, addr, want string) {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	until(t, 30*time.Second, func() string {
		resp, err := client.Get("http://" + addr + "/")
		if err != nil {
			return err.Error()
		}
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && strings.Contains(string(b), want) {
			return ""
		}
		return fmt.Sprintf("%s answers %q, %v, and not %q", addr, b, err, want)
	})
}

// TestBadGroups: Validate says which group can't work, and opens nothing.
func TestBadGroups(t *testing.T) {
	app := demo.App
	cfg := func(groups ...handover.Group) handover.Config {
		return handover.Config{Listen: []string{"http=tcp://127.0.0.1:1", "own-1=tcp://127.0.0.1:2"}, Groups: groups}
	}
	single := cfg(handover.Group{Name: "web"})
	single.Single = true
	for want, c := range map[string]handover.Config{
		"groups need parent and workers":     single,
		`group name "": use letters`:         cfg(handover.Group{}),
		`group name "a=b"`:                   cfg(handover.Group{Name: "a=b"}),
		`group "a": count -1`:                cfg(handover.Group{Name: "a", Workers: -1}),
		`group "a": 2 workers, an agent`:     cfg(handover.Group{Name: "a", Agent: true, Workers: 2}),
		`group "a": an agent has no sockets`: cfg(handover.Group{Name: "a", Agent: true, Sockets: []string{"http"}}),
		`group "a": an app and a command`:    cfg(handover.Group{Name: "a", App: app, Command: []string{"x"}}),
		`group "a": there is no socket "x"`:  cfg(handover.Group{Name: "a", Sockets: []string{"x"}}),
		`group "a": user "nobody at all"`:    cfg(handover.Group{Name: "a", User: "nobody at all"}),
		`group "a": user "1:no such group"`:  cfg(handover.Group{Name: "a", User: "1:no such group"}),
		`group "a": user "4000000"`:          cfg(handover.Group{Name: "a", User: "4000000"}),
		`group "b" is there twice`:           cfg(handover.Group{Name: "b", Sockets: []string{}}, handover.Group{Name: "b"}),
		`each waits for the next: b, a, b`:   cfg(handover.Group{Name: "b", Agent: true, After: []string{"a"}}, handover.Group{Name: "a"}),
		`group "a": environment entry "X"`:   cfg(handover.Group{Name: "a", Env: []string{"X"}}),
		`group "a": a burst of -1 in 0s`:     cfg(handover.Group{Name: "a", Burst: -1}),
		`group "a": readiness http:x`:        cfg(handover.Group{Name: "a", Ready: workerset.Readiness{By: workerset.ReadyHTTP, Path: "x"}}),
	} {
		if err := c.Validate(); !errors.Is(err, handover.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, not %q", err, want)
		}
	}
	good := cfg(
		handover.Group{Name: "agent", Agent: true, App: app}, handover.Group{Name: "web", User: "65534:65534"},
		handover.Group{Name: "own", Sockets: []string{"own-{slot}"}, Workers: 1, After: []string{"web"}})
	if os.Geteuid() != 0 {
		good.Groups[1].User = ""
	}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
}

// TestGroupUser: a group's workers are somebody else's, after an upgrade too.
func TestGroupUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	s, _ := grouped(t, `[{"Name":"web","User":"nobody"}]`)
	l := s.load(10)
	s.upgrade()
	answered(t, l, "generation=2")
	for _, pid := range s.workers() {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if got := match(string(b), `Uid:\s+(\d+)`); err != nil || got != "65534" {
			t.Errorf("worker %d is user %q, %v", pid, got, err)
		}
	}
	check(t, l)
	s.stop()
}

// TestGroupsShareSocket: connections move to workers of their own group, which may be
// another program than the others that serve the same socket.
func TestGroupsShareSocket(t *testing.T) {
	s, _ := grouped(t, `[{"Name":"web"},{"Name":"other","Workers":1}]`)
	var conns []*bufio.ReadWriter
	ask := func(c *bufio.ReadWriter) string {
		t.Helper()
		_, err := c.WriteString("GET / HTTP/1.1\r\nHost: x\r\n\r\n")
		if err == nil {
			err = c.Flush()
		}
		if err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(c.Reader, nil)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	group := func(answer string) string { return match(answer, `^(\w+)/`) }
	var before []string
	var all []net.Conn
	for range 12 {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		rw := bufio.NewReadWriter(bufio.NewReader(c), bufio.NewWriter(c))
		all = append(all, c)
		conns, before = append(conns, rw), append(before, group(ask(rw)))
	}
	s.upgrade()
	for i, c := range conns {
		until(t, 30*time.Second, func() string {
			answer := ask(c)
			if group(answer) != before[i] {
				t.Fatalf("a connection of group %s is answered by %s", before[i], answer)
			}
			if !strings.Contains(answer, "generation=2") {
				return answer
			}
			return ""
		})
	}
	for _, c := range all {
		c.Close() // nobody waits for the lame-duck time
	}
	s.stop()
}
