package anchor

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
)

// Orphans are reaped while the parent lives.
func TestReaping(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	var orphans []*actor
	for range 10 {
		b := w.spawn(a)
		orphans = append(orphans, w.spawn(b), w.spawn(b))
		b.tell("exit 0")
		if got := a.ask("reap %d", b.pid); got != "exit status 0" {
			t.Errorf("reaped: %s", got)
		}
	}
	for _, o := range orphans {
		o.tell("exit 1")
	}
	file := fmt.Sprintf("/proc/%[1]d/task/%[1]d/children", w.anchor.Pid)
	threads := filepath.Join(filepath.Dir(filepath.Dir(file)), "*", "children")
	if !until(func() bool { return len(strings.Fields(cat(threads))) == 1 }) {
		t.Errorf("the anchor's children are %s, not only %d", cat(threads), a.pid)
	}
	a.tell("exit 0")
	w.exit(0)
}

// cat is the text of all files of a pattern.
func cat(pattern string) string {
	names, _ := filepath.Glob(pattern)
	var all []string
	for _, name := range names {
		b, _ := os.ReadFile(name)
		all = append(all, string(b))
	}
	return strings.Join(all, " ")
}

// Descriptors that come with notifications are closed, also when there is no room
// for all of them, and long notifications are ignored.
func TestBadNotes(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	anchor := strconv.Itoa(w.anchor.Pid)
	before := openFiles(anchor)
	for range 20 {
		if got := a.ask("store 200"); got != "stored <nil>" {
			t.Fatal(got)
		}
	}
	var old unix.Rlimit
	if err := unix.Prlimit(w.anchor.Pid, unix.RLIMIT_NOFILE, nil, &old); err != nil {
		t.Fatal(err)
	}
	// Room for two of ten, and for the barrier's one after that.
	if err := unix.Prlimit(w.anchor.Pid, unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(before) + 2, Max: old.Max}, nil); err != nil {
		t.Fatal(err)
	}
	if got := a.ask("store 10"); got != "stored <nil>" {
		t.Error(got)
	}
	w.logged("descriptors of a notification were lost")
	if err := unix.Prlimit(w.anchor.Pid, unix.RLIMIT_NOFILE, &old, nil); err != nil {
		t.Fatal(err)
	}
	b := w.spawn(a)
	long := "STATUS=" + strings.Repeat("x", sdnotify.MaxNote)
	a.notify("MAINPID="+strconv.Itoa(b.pid), long)
	w.logged("too long")
	w.signal(syscall.SIGHUP)
	a.expect("signal SIGHUP")
	if after := openFiles(anchor); after != before {
		t.Errorf("%d open files, %d before", after, before)
	}
	b.tell("exit 0")
	a.tell("exit 0")
	w.exit(0)
}

// The anchor outlives the reader of its log.
func TestNoLog(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.launch(func(int) (*launch.Process, error) {
		r, wr, err := os.Pipe()
		if err != nil {
			return nil, err
		}
		r.Close()
		defer wr.Close()
		fd, err := launch.Fd(wr)
		if err != nil {
			return nil, err
		}
		self := testBinary(t)
		return launch.Start(launch.Spec{Path: self, Args: []string{self}, Env: w.env("anchor"), Fds: []int{fd, fd, fd}})
	})
	a := w.accept()
	b := w.spawn(a)
	a.tell("kill 9") // which is worth a line in the log
	a.gone()
	w.signal(syscall.SIGTERM)
	b.tell("exit 0")
	w.exit(128 + 9)
}

// The anchor as PID 1, with a /proc of its own.
func TestPID1(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	r, wr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := exec.Command(testBinary(t))
	cmd.Env = w.env("pid1")
	cmd.Stderr = wr
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	if os.Getuid() != 0 {
		cmd.SysProcAttr.Cloneflags |= unix.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{HostID: os.Getuid(), Size: 1}}
	}
	err = cmd.Start()
	wr.Close()
	if err != nil {
		t.Skip("no pid namespace here: ", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	a := w.accept()
	if got := a.ask("env " + EnvPid); got != "1" {
		t.Fatalf("the anchor's pid is said to be %s", got)
	}
	a.notify("READY=1")
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM} {
		if err := cmd.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		a.expect("signal " + unix.SignalName(sig))
	}
	b := w.spawn(a)
	c := w.spawn(b)
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	b.expect("signal SIGTERM") // which the parent has made nothing of
	a.tell("exit 0")
	a.gone()
	b.tell("kill 9") // it was asked to stop, so that nobody takes its place
	b.gone()
	c.tell("exit 0")
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 128+9 {
		t.Errorf("exit code %d", code)
	}
}

func TestErrors(t *testing.T) {
	if err := (Config{Grace: -time.Second}).Validate(); err == nil {
		t.Error("a negative grace is valid")
	}
	if code, err := Run(Config{Grace: -time.Second}); code != 1 || err == nil {
		t.Errorf("%d, %v", code, err)
	}
	t.Setenv(EnvPid, "1")
	if code, err := Run(Config{}); code != 1 || err == nil || !strings.Contains(err.Error(), EnvPid) {
		t.Errorf("%d, %v", code, err)
	}
}
