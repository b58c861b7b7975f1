package handover_test

import (
	"context"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
)

// check is the verdict on a load: nothing failed, and something was asked.
func check(t *testing.T, l *load.Load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil { // also after the last restart
		t.Error(err)
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	t.Logf("%d requests, p99 %v, max %v, %d processes answered", r.Started, r.Latency.P99, r.Latency.Max, len(r.Workers))
}

func answered(t *testing.T, l *load.Load, what string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	err := l.WaitWorker(ctx, func(w string) bool { return strings.Contains(w+" ", what+" ") })
	if err != nil {
		t.Fatalf("no answer from %q: %v", what, err)
	}
}

func TestUpgradesUnderLoad(t *testing.T) {
	s := startService(t, 2)
	l := s.load(40)
	fdsBefore := parentFDs(t, s)
	for i := range 20 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	check(t, l)
	if n := parentFDs(t, s); n > fdsBefore+4 {
		t.Errorf("the parent had %d descriptors, and has %d after 20 upgrades", fdsBefore, n)
	}
	s.stop()
	if _, err := os.Stat(s.pidFile); !os.IsNotExist(err) {
		t.Errorf("the PID file is still there: %v", err)
	}
}

// TestStackedUpgrades asks for the next upgrade 50 ms after each commit, while
// the workers before still drain: a slow request holds each of them.
func TestStackedUpgrades(t *testing.T) {
	s := startService(t, 2)
	l := s.load(20)
	for i := range 20 {
		from := s.mark()
		parent := s.parent()
		if err := syscall.Kill(parent, syscall.SIGHUP); err != nil { // the PID file's pid, as well as the anchor's
			t.Fatal(err)
		}
		if _, err := s.waitFrom(from, has(`msg="worker serves"`, fmt.Sprintf("generation=%d ", i+2))); err != nil {
			t.Fatal(err)
		}
		<-time.After(50 * time.Millisecond)
	}
	answered(t, l, "generation=21")
	check(t, l)
	s.stop()
}

// TestUpgradeDuringRoll asks for the next upgrade as soon as the first worker of a
// generation serves: most of those before it have not been replaced yet.
func TestUpgradeDuringRoll(t *testing.T) {
	s := startService(t, 6)
	l := s.load(20)
	for i := range 5 {
		from := s.mark()
		s.signal(syscall.SIGHUP)
		if _, err := s.waitFrom(from, has(`msg="worker serves"`, fmt.Sprintf("generation=%d ", i+2))); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.waitFrom(0, has(`msg="generation serves"`, "generation=6 ")); err != nil {
		t.Fatal(err)
	}
	check(t, l)
	s.stop()
}

// TestHUPsCollapse: however many arrive during an upgrade, exactly one more
// follows.
func TestHUPsCollapse(t *testing.T) {
	s := startService(t, 1)
	from := s.mark()
	parent := s.parent()
	s.signal(syscall.SIGHUP)
	if _, err := s.waitFrom(from, has(`msg="upgrade begins"`)); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		_ = syscall.Kill(parent, syscall.SIGHUP) // the old parent, for as long as there is one
	}
	if _, err := s.waitFrom(from, has(`msg="generation serves"`, "generation=3 ")); err != nil {
		t.Fatal(err)
	}
	s.stop()
	for _, line := range strings.Split(s.tail(1000), "\n") {
		if strings.Contains(line, "generation=4 ") {
			t.Fatalf("21 HUPs led to a fourth generation: %s", line)
		}
	}
}

// has makes a condition for waitFrom of the parts that a line is to have.
func has(parts ...string) func(string) bool {
	return func(line string) bool {
		for _, p := range parts {
			if !strings.Contains(line+" ", p) {
				return false
			}
		}
		return true
	}
}

func TestWorkersReplacedUnderLoad(t *testing.T) {
	s := startService(t, 2)
	l := s.load(40)
	for range 20 {
		from := s.mark()
		pid := s.workers()[0]
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		line, err := s.waitFrom(from, has(`msg="worker exited"`, fmt.Sprintf("pid=%d ", pid)))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, `status="exit status 0"`) || !strings.Contains(line, "cause=retire") {
			t.Fatalf("after a plain kill: %s", line)
		}
	}
	for range 20 {
		from := s.mark()
		resp, err := http.Get("http://" + s.addr + "/fail")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		pid := match(resp.Header.Get("X-Worker"), `pid=(\d+)`)
		line, err := s.waitFrom(from, has(`msg="worker exited"`, "pid="+pid+" "))
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(line, `status="exit status 1"`) || !strings.Contains(line, "cause=error") {
			t.Fatalf("after a failure: %s", line)
		}
	}
	check(t, l)
	if n := len(s.workers()); n != 2 {
		t.Errorf("%d workers after 40 replacements, not 2", n)
	}
	s.stop()
}

// TestKillNine: only what a killed worker had taken may fail.
func TestKillNine(t *testing.T) {
	for name, begin := range map[string]func(*service) *load.Load{
		"new":  func(s *service) *load.Load { return s.load(40) },
		"kept": (*service).keep,
	} {
		t.Run(name, func(t *testing.T) {
			s := startService(t, 2)
			l := begin(s)
			excuse := func(r load.Result) load.Result { return r }
			for range 20 {
				before := excuse
				at, peers := s.killWorker()
				excuse = func(r load.Result) load.Result { return before(r).ExceptAt(at, peers) }
				if err := l.WaitRequests(t.Context(), 20); err != nil {
					t.Fatal(err)
				}
			}
			r := excuse(l.Stop())
			if err := r.Check(); err != nil {
				t.Errorf("clients of living workers noticed: %v", err)
			}
			if r.Excused == 0 {
				t.Error("the workers had nothing when they were killed")
			}
			t.Logf("%d requests, %d died with their workers", r.Started, r.Excused)
			s.stop()
		})
	}
}

// killWorker kills a worker, waits for the one that takes its place, and returns when
// it was and whose connections it had.
func (s *service) killWorker() (at time.Time, peers map[string]bool) {
	s.t.Helper()
	from := s.mark()
	pid := s.workers()[0]
	if err := procs.Freeze(s.t.Context(), pid); err != nil {
		s.t.Fatal(err)
	}
	at = time.Now()
	peers, err := procs.Peers(pid)
	if err != nil {
		s.t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has(`msg="worker serves"`)); err != nil {
		s.t.Fatal(err)
	}
	return at, peers
}

// TestBadPrograms upgrades ten times in a row to each of a number of programs
// that can't take over.
func TestBadPrograms(t *testing.T) {
	s := startService(t, 2, "TEST_UPGRADE_TIMEOUT=1s")
	l := s.load(20)
	self, err := os.ReadFile(s.bin)
	if err != nil {
		t.Fatal(err)
	}
	script := func(text string) func(string) error {
		return func(tmp string) error { return os.WriteFile(tmp, []byte("#!/bin/sh\n"+text+"\n"), 0o755) }
	}
	for _, bad := range []struct {
		name string
		make func(tmp string) error
		want []string // in the log
	}{
		{"exits", script("echo no database >&2; exit 3"), []string{"exit status 3", "no database"}},
		{"killed", script("echo going; kill -9 $$"), []string{"killed by SIGKILL", "going"}},
		{"truncated", func(tmp string) error { return os.WriteFile(tmp, self[:len(self)/3], 0o755) }, nil},
		{"not executable", func(tmp string) error { return os.WriteFile(tmp, self, 0o644) }, []string{"has no x"}},
		{"not a program", func(tmp string) error { return os.WriteFile(tmp, []byte("hello"), 0o755) }, []string{"neither a program"}},
		{"hangs", script("exec sleep 60"), []string{"not ready in time"}},
	} {
		t.Run(bad.name, func(t *testing.T) {
			s.replace(bad.make)
			times := 10
			if bad.name == "hangs" {
				times = 3 // of a second each
			}
			for range times {
				from := s.mark()
				s.signal(syscall.SIGHUP)
				line, err := s.waitFrom(from, has("nothing has changed"))
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range bad.want {
					if !strings.Contains(line, w) {
						t.Fatalf("the log does not say %q: %s", w, line)
					}
				}
			}
		})
	}
	s.install()
	s.upgrade()
	answered(t, l, "generation=2")
	check(t, l)
	s.stop()
}

// TestNewGenerationFails: programs of our own that fail in the worker, or hang
// before they are ready.
func TestNewGenerationFails(t *testing.T) {
	s := startService(t, 2, "TEST_UPGRADE_TIMEOUT=1500ms")
	l := s.load(20)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	// The script changes the environment of what is otherwise the same program.
	as := func(env string) func(string) error {
		real := filepath.Join(t.TempDir(), serviceName)
		if err := copyFile(self, real); err != nil {
			t.Fatal(err)
		}
		return func(tmp string) error {
			return os.WriteFile(tmp, []byte("#!/bin/sh\nunset HANDOVER_ARGV0\nexport "+env+"\nexec "+real+"\n"), 0o755)
		}
	}
	for _, bad := range []struct{ env, want string }{
		{"TEST_APP=error", "cannot open the database"},
		{"TEST_APP=exit", "exit status 7"},
		{"TEST_APP=panic", "exit status 2"},
		{"TEST_APP=hang", "not ready in time"},
	} {
		t.Run(bad.env, func(t *testing.T) {
			s.replace(as(bad.env))
			for range 3 {
				from := s.mark()
				s.signal(syscall.SIGHUP)
				line, err := s.waitFrom(from, has("nothing has changed"))
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(line, bad.want) {
					t.Fatalf("the log does not say %q: %s", bad.want, line)
				}
			}
			if n := len(s.workers()); n != 2 {
				t.Errorf("%d workers, not 2", n)
			}
		})
	}
	s.install()
	s.upgrade()
	answered(t, l, "generation=2")
	check(t, l)
	s.stop()
}

func parentFDs(t *testing.T, s *service) int {
	t.Helper()
	fds, err := procs.FDs(s.parent())
	if err != nil {
		t.Fatal(err)
	}
	return len(fds)
}
