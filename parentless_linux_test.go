package handover_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/control"
)

// killParent kills the parent and waits until another one serves.
func (s *service) killParent() {
	s.t.Helper()
	from, old := s.mark(), s.parent()
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		s.t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has(`msg="generation serves"`)); err != nil {
		s.t.Fatal(err)
	}
	if now := s.parent(); now == old {
		s.t.Errorf("the PID file still names %d", old)
	}
}

// TestParentDies: a parent that is killed is replaced, on the same sockets, and no client
// notices: its workers serve on, and the next one takes them over.
func TestParentDies(t *testing.T) { parentDies(t) }

// TestParentOfKeptDies: so it is with workers whose output goes by the parent.
func TestParentOfKeptDies(t *testing.T) { parentDies(t, "TEST_KEEP_OUTPUT=1") }

func parentDies(t *testing.T, env ...string) {
	dir := shortDir(t)
	s := startService(t, 2, append(env, "TEST_LISTEN=http=tcp://127.0.0.1:0,admin=unix://"+dir+"/admin", "TEST_CONTROL="+dir+"/control")...)
	l := s.loadOf(50, map[load.Kind]int{load.New: 2, load.Slow: 2, load.Upload: 1, load.Stream: 1})
	answers := func(when string) {
		t.Helper()
		c, err := net.Dial("unix", dir+"/admin")
		if err != nil {
			t.Fatalf("%s: %v", when, err)
		}
		c.Close()
		if _, _, err := control.NewClient(filepath.Join(dir, "control")).Status(t.Context()); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	stay := func(what func()) {
		t.Helper()
		before := s.workers()
		what()
		if after := s.workers(); !slices.Equal(before, after) {
			t.Errorf("the workers were %v, and are %v", before, after)
		}
	}
	for i := range 4 {
		generation := i/2 + 1
		h := holdFor(t, s.addr, 300*time.Millisecond)
		stay(s.killParent)
		h.answeredBy(t, fmt.Sprintf("generation=%d ", generation))
		answers(fmt.Sprint("death ", i))
		if i%2 == 1 {
			s.upgrade() // its sockets are the same ones, for the next to die
			answers("upgrade")
			until(t, 10*time.Second, func() string { // those before have drained
				if n := len(s.workers()); n != 2 {
					return fmt.Sprintf("%d workers", n)
				}
				return ""
			})
			stay(s.killParent)
			answered(t, l, fmt.Sprintf("generation=%d", generation+1))
		}
	}
	check(t, l)
	s.stop()
	if log := s.tail(1000); strings.Contains(log, "nothing here asks for") || strings.Contains(log, "address already in use") {
		t.Error(log)
	}
}

// TestParentOfProgramsDies: programs that know nothing of all this stay, too, and what they
// print goes through the next parent.
func TestParentOfProgramsDies(t *testing.T) {
	s := startService(t, 2, "TEST_COMMAND="+program(t, "static"), "TEST_READY=http:/")
	l := s.loadOf(20, map[load.Kind]int{load.New: 2, load.Slow: 1})
	for range 3 {
		old := s.workers()
		s.killParent()
		if now := s.workers(); !slices.Equal(old, now) {
			t.Errorf("the workers were %v, and are %v", old, now)
		}
	}
	s.upgrade()
	s.killParent()
	check(t, l)
	from := s.mark()
	pid := s.workers()[0]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has(`msg="worker exited"`, fmt.Sprintf("pid=%d ", pid), "killed by SIGKILL")); err != nil {
		t.Error(err)
	}
	s.stop()
}

// TestAnchorUpgrades: with another program the anchor becomes one of that, and keeps its
// pid, the sockets and the service.
func TestAnchorUpgrades(t *testing.T) {
	s := startService(t, 2, "TEST_PROBATION=10ms")
	l := s.load(50)
	for range 3 {
		s.replace(func(tmp string) error { return copyFile(s.bin, tmp) })
		s.upgrade()
		until(t, 10*time.Second, func() string {
			now, err := os.Stat(fmt.Sprintf("/proc/%d/exe", s.pid))
			file, ferr := os.Stat(s.bin)
			if err != nil || ferr != nil || !os.SameFile(now, file) {
				return fmt.Sprintf("the anchor executes another file than %s (%v, %v)", s.bin, err, ferr)
			}
			return ""
		})
		s.killParent()
	}
	check(t, l)
	s.stop()
}

// TestParentDiesOnProbation: the one that is started in its place is of the last release that
// has proven itself, which has no file any more.
func TestParentDiesOnProbation(t *testing.T) {
	s := startService(t, 2, "TEST_PROBATION=30s")
	l := s.load(50)
	s.deploy("second")
	s.upgrade()
	s.runs("second")
	s.killParent()
	s.runs("")
	check(t, l)
	s.stop()
}

// TestAdoptedStatus: the parent learns from the anchor how workers have ended that are not
// its children, also where the kernel does not tell. (One that ends at once is still the old
// parent's child, and nobody knows: that may be slot 1's, which is the first to be replaced.)
func TestAdoptedStatus(t *testing.T) {
	s := startService(t, 2, "TEST_NO_KERNEL_INFO=1", "TEST_COMMAND="+program(t, "static"), "TEST_READY=http:/")
	for i := range 3 {
		from := s.mark()
		s.upgrade()
		line, err := s.waitFrom(from, has(`msg="worker exited"`, "worker=web/2 ", fmt.Sprintf("worker_generation=%d ", i+1)))
		if err != nil || !strings.Contains(line, "exit status 0") {
			t.Errorf("%v: %s", err, line)
		}
	}
	s.stop()
}

// TestSoloAnchored: a program without workers has an anchor by one call.
func TestSoloAnchored(t *testing.T) {
	s := startSolo(t, "tcp://127.0.0.1:0", "TEST_ANCHOR=1")
	s.ended = true // it ends with its anchor
	anchor := s.cmd.Process.Pid
	l := s.loadOf(50, map[load.Kind]int{load.New: 2})
	for range 3 {
		from, old := s.mark(), s.parent()
		if err := syscall.Kill(anchor, syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		if _, err := s.waitFrom(from, has("msg=upgraded err=<nil>")); err != nil {
			t.Fatal(err)
		}
		if now := s.parent(); now == old || now == anchor {
			t.Errorf("process %d serves, before it was %d; the anchor is %d", now, old, anchor)
		}
	}
	check(t, l)
	from := s.mark()
	if err := syscall.Kill(s.parent(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has("msg=started")); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, func() string {
		c, err := net.Dial("tcp", s.addr) // on the same port
		if err != nil {
			return err.Error()
		}
		c.Close()
		return ""
	})
	until(t, 10*time.Second, func() string { // it acts on signals when it decides
		if b, err := os.ReadFile(s.pidFile); err != nil || len(b) == 0 {
			return "no PID file"
		}
		if err := syscall.Kill(readPid(t, s.pidFile), 0); err != nil {
			return "the PID file is the dead one's"
		}
		return ""
	})
	if err := syscall.Kill(anchor, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.awaitExit(0)
}
