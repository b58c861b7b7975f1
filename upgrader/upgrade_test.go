//go:build linux

package upgrader

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// Connections that are open, and one that nobody has accepted, see nothing of an
// upgrade.
func TestConnections(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	addr := r.addr()
	var held []io.Reader
	for range 4 {
		pid, rest := r.client("tcp", addr, "/hold")
		if pid != r.pid {
			t.Fatalf("process %d serves, want %d", pid, r.pid)
		}
		held = append(held, rest)
	}
	old := r.beginUpgrade()
	for range 4 { // the old one may still be in accept(2)
		if pid, _ := r.client("tcp", addr, "/"); pid != r.pid && pid != old {
			t.Errorf("process %d serves, want %d", pid, r.pid)
		}
	}
	if _, err := r.ask(t.Context(), old, "/release"); err != nil {
		t.Error(err)
	}
	for _, h := range held {
		if b, err := io.ReadAll(h); string(b) != "released\n" || err != nil {
			t.Errorf("a request in flight was answered %q, %v", b, err)
		}
	}
	r.awaitEnd(old)
	r.serves(addr)
	r.stop()
}

// A connection that is in the queue of the socket while no process accepts is
// served by the next one: the socket is the same.
func TestQueuedConnection(t *testing.T) {
	t.Parallel()
	r := newSite(t, settings{Mode: "no accept"}).start()
	addr := r.addr()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	r.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}})
	r.upgrade()
	if got := r.addr(); got != addr {
		t.Errorf("address %s, want %s", got, addr)
	}
	if pid, _ := r.request(c, "/"); pid != r.pid {
		t.Errorf("process %d serves, want %d", pid, r.pid)
	}
	r.stop()
}

func TestTwentyUpgrades(t *testing.T) {
	t.Parallel()
	r := newSite(t, settings{}).start()
	addr := r.addr()
	before := r.stats()

	// Whoever reads the PID file at any time finds a pid in it.
	reading, seen := make(chan struct{}), make(chan []string)
	go func() {
		var all []string
		for {
			select {
			case <-reading:
				seen <- all
				return
			default:
			}
			if now := r.pidFile(); len(all) == 0 || all[len(all)-1] != now {
				all = append(all, now)
			}
		}
	}()
	pids := []string{fmt.Sprintf("%d\n", r.pid)}
	for range 20 {
		r.upgrade()
		r.serves(addr)
		pids = append(pids, fmt.Sprintf("%d\n", r.pid))
		if got := r.pidFile(); got != pids[len(pids)-1] {
			t.Errorf("PID file %q, want %q", got, pids[len(pids)-1])
		}
	}
	close(reading)
	got, rest := <-seen, pids
	for _, pid := range got {
		i := slices.Index(rest, pid)
		if i < 0 {
			t.Fatalf("the PID file was read as %q, the pids are %q", got, pids)
		}
		rest = rest[i:]
	}
	after := r.stats()
	if after.Generation != 21 {
		t.Errorf("generation %d, want 21", after.Generation)
	}
	if !after.Nonblock {
		t.Error("the socket has lost O_NONBLOCK")
	}
	// Two more than the first has: where the service's output goes. What it has
	// of its predecessor goes with that one.
	until(t, "no more descriptors than in the first process", func() bool {
		after = r.stats()
		return len(after.FDs) <= len(before.FDs)+2
	})
	r.stop()
	if got := r.pidFile(); !strings.Contains(got, "no such file") {
		t.Errorf("PID file at the end: %s", got)
	}
}

// HUPs to the old pid mean the service, whoever that is.
func TestRelay(t *testing.T) {
	t.Parallel()
	r := newSite(t, settings{}).start()
	addr := r.addr()
	_, rest := r.client("tcp", addr, "/hold")
	old := r.beginUpgrade()
	second := r.pid
	if err := syscall.Kill(old, syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	r.await("relayed true", "HUP upgraded") // by the signals' actor, or by its action
	// The second process waits until the first has gone.
	if _, err := r.ask(t.Context(), old, "/release"); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(rest); string(b) != "released\n" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	r.awaitMain(0)
	r.awaitEnd(old)
	r.awaitEnd(second)
	if n := r.stats().Generation; n != 3 {
		t.Errorf("generation %d", n)
	}
	r.serves(addr)
	r.stop()
}

// Upgrade in a process that has been replaced asks the successor; whose upgrade
// waits for the end of the one before, for as long as the context allows.
func TestPredecessorAlive(t *testing.T) {
	t.Parallel()
	r := newSite(t, settings{}).start()
	_, rest := r.client("tcp", r.addr(), "/hold")
	old := r.beginUpgrade()
	for range 3 {
		if a := r.tryUpgrade(r.pid, time.Millisecond); !a.is("predecessor alive") || !a.is("deadline") {
			t.Fatalf("%+v", a)
		}
	}
	answers := make(chan answer, 1)
	go func() {
		for {
			if a := r.tryUpgrade(r.pid, patience); !a.is("in progress") { // with what follows
				answers <- a
				return
			}
		}
	}()
	until(t, "the upgrade waits", func() bool { return r.tryUpgrade(r.pid, time.Millisecond).is("in progress") })
	if _, err := r.ask(t.Context(), old, "/release"); err != nil {
		t.Error(err)
	}
	_, _ = io.ReadAll(rest)
	second := r.pid
	r.awaitMain(0)
	if a := <-answers; a.Err != "" {
		t.Errorf("%+v", a)
	}
	r.awaitEnd(second)
	r.stop()
}

// Nothing that the new process prints is lost, or comes twice.
func TestPendingOutput(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}, Mode: "chatty"})
	r.upgrade()
	if !r.stats().Blocking {
		t.Error("standard output would lose what does not fit")
	}
	second := r.pid
	s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}})
	r.upgrade()
	r.stop()
	next := 0
	for _, m := range regexp.MustCompile(`(?m)^line (\d+) x{60}$`).FindAllStringSubmatch(r.out.String(), -1) {
		if n, _ := strconv.Atoi(m[1]); n != next {
			t.Fatalf("line %d where %d is due", n, next)
		}
		next++
	}
	if next != 3000 {
		t.Errorf("%d lines of 3000", next)
	}
	for _, pid := range []int{second, r.pid} {
		if want := fmt.Sprintf("end %d\n", pid); r.lines(want) != 1 {
			t.Errorf("not once: %q", want)
		}
	}
}

// A parent hands over descriptors and state.
func TestYield(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{Yield: "give"})
	r := s.start()
	old := r.upgrade()
	r.await(fmt.Sprintf("inherited %d settings true\n", old))

	// A successor that dies after the commit gives it back.
	for _, mode := range []string{"die after ack", "hang after commit"} {
		s.configure(settings{Mode: mode, Yield: "give", Listen: []string{"tcp://127.0.0.1:0"}})
		a := r.tryUpgrade(r.pid, time.Second)
		if a.Failed == nil || a.Failed.Status != "killed by SIGKILL" {
			t.Errorf("%s: %+v", mode, a)
		}
		if timeout := mode == "hang after commit"; a.is("timeout") != timeout || a.is("ended") == timeout {
			t.Errorf("%s: %+v", mode, a)
		}
	}
	until(t, "both are given back", func() bool {
		return r.lines(fmt.Sprintf("resumed %d\n", r.pid)) == 2
	})
	s.configure(settings{Yield: "fail", Listen: []string{"tcp://127.0.0.1:0"}})
	old = r.upgrade()
	r.await(fmt.Sprintf("inherited %d settings true\n", old))

	// One that does not give anything keeps it.
	if a := r.tryUpgrade(r.pid, patience); a.Failed == nil || a.Cause != "this is mine" {
		t.Errorf("%+v", a)
	}
	if strings.Contains(r.out.String(), fmt.Sprintf("resumed %d\n", r.pid)) {
		t.Error("resumed what it did not yield")
	}
	r.stop()
}

func TestTitle(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	s.args = []string{"-x", "a b", ""}
	r := s.start()
	want := append([]string{s.program}, s.args...)
	if st := r.stats(); !slices.Equal(st.Args, want) || st.Cmdline != s.program {
		t.Errorf("args %q, in ps %q", st.Args, st.Cmdline)
	}
	s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}, Title: "shop: parent"})
	// The title is that of the process that has been told it: the next one.
	for range 3 {
		r.upgrade()
		if st := r.stats(); !slices.Equal(st.Args, want) || st.Exe != s.program {
			t.Errorf("args %q, executable %s", st.Args, st.Exe)
		}
	}
	if st := r.stats(); st.Cmdline != "shop: parent" {
		t.Errorf("in ps %q", st.Cmdline)
	}
	r.stop()
}

// What a service starts does not take itself for its successor, and has nothing
// open that a child of this test would not have.
func TestChildEnvironment(t *testing.T) {
	t.Parallel()
	r := newSite(t, settings{}).start()
	usual := map[string]bool{}
	for _, to := range inspectChild(t).FDs {
		usual[to] = true
	}
	spawn := func() {
		t.Helper()
		var child stats
		r.decode(r.pid, "/spawn", &child)
		for _, kv := range child.Env {
			if strings.HasPrefix(kv, "TABLEFLIP") || strings.HasPrefix(kv, "HANDOVER") {
				t.Errorf("a child has %s", kv)
			}
		}
		for fd, to := range child.FDs {
			if n, _ := strconv.Atoi(fd); n > 2 && !usual[to] {
				t.Errorf("a child has descriptor %s: %s", fd, to)
			}
		}
	}
	spawn()
	_, rest := r.client("tcp", r.addr(), "/hold")
	old := r.beginUpgrade()
	spawn() // while the predecessor drains
	if _, err := r.ask(t.Context(), old, "/release"); err != nil {
		t.Error(err)
	}
	_, _ = io.ReadAll(rest)
	r.awaitEnd(old)
	spawn()
	r.stop()
}

// inspectChild starts a child of this process that says what it has.
func inspectChild(t *testing.T) (st stats) {
	t.Helper()
	out, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	fd, err := launch.Fd(w)
	if err != nil {
		t.Fatal(err)
	}
	p, err := launch.Start(launch.Spec{
		Path: launch.Self, Args: []string{"inspect"}, Env: append(os.Environ(), envProgram+"=inspect", "GORACE=atexit_sleep_ms=0"), Fds: []int{0, fd, 2},
	})
	w.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	defer p.Wait()
	if err := json.NewDecoder(out).Decode(&st); err != nil {
		t.Fatal(err)
	}
	return st
}

func TestOwnPath(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	other := filepath.Join(s.dir, "other")
	s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}, Path: "./other"})
	s.install(other)
	r := s.start()
	r.upgrade()
	if st := r.stats(); st.Exe != other || st.Args[0] != s.program {
		t.Errorf("executable %s, args %q", st.Exe, st.Args)
	}
	if err := os.Remove(s.program); err != nil {
		t.Fatal(err)
	}
	r.upgrade()
	r.stop()
}
