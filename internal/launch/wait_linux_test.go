package launch

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Fifty processes are waited for without a thread each.
func TestThreads(t *testing.T) {
	checkFiles(t)
	const n = 50
	var wg sync.WaitGroup
	var all []*child
	for range n {
		c := cat(t)
		all = append(all, c)
		wg.Go(func() { c.Wait() })
	}
	until(t, "all are waited for", func() bool { return goroutines(waiting...) == n })
	if got := threads(t); got > n/2 {
		t.Errorf("%d threads for %d processes", got, n)
	}
	for _, c := range all {
		c.in.Close()
	}
	wg.Wait()
}

func threads(t *testing.T) int {
	t.Helper()
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), "\nThreads:")
	n, err := strconv.Atoi(strings.TrimSpace(strings.SplitN(rest, "\n", 2)[0]))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestWaitTogether(t *testing.T) {
	checkFiles(t)
	c := begin(t, shell("read x; exit 7"))
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if st := c.Wait(); st != (Status{Known: true, Code: 7}) {
				t.Errorf("%+v", st)
			}
		})
	}
	for range 20 {
		wg.Go(func() { _ = c.Signal(0) })
	}
	c.in.Close()
	wg.Wait()
}

func TestCloseInWait(t *testing.T) {
	checkFiles(t)
	c := cat(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		if st := c.Wait(); st != unknown {
			t.Errorf("%+v", st)
		}
	})
	until(t, "it waits", func() bool { return goroutines(waiting...) == 1 })
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	wg.Wait()
	<-c.Done()
	if err := c.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
		t.Errorf("signal after Close: %v", err)
	}
	if err := c.Close(); err == nil {
		t.Error("Close works twice")
	}
	// Nobody knows it any more: it is reaped with the orphans.
	c.in.Close()
	until(t, "it is reaped", func() bool { reapOrphans(); return len(Children()) == 0 })
}

// Close and the end of the process at the same time.
func TestCloseRace(t *testing.T) {
	checkFiles(t)
	for range 30 {
		c := begin(t, shell("exit 3"))
		var wg sync.WaitGroup
		wg.Go(func() {
			if st := c.Wait(); st != unknown && st != (Status{Known: true, Code: 3}) {
				t.Errorf("%+v", st)
			}
		})
		wg.Go(func() { c.Close() })
		wg.Wait()
	}
	until(t, "all are reaped", func() bool { reapOrphans(); return len(Children()) == 0 })
	if len(known.owner) > 0 {
		t.Errorf("still known: %v", known.owner)
	}
}

// The kernel still takes signals for a process that has ended and was not reaped.
func TestSignalZombie(t *testing.T) {
	checkFiles(t)
	c := cat(t)
	if err := c.Signal(0); err != nil {
		t.Errorf("it lives: %v", err)
	}
	if err := c.Signal(syscall.Signal(999)); err == nil || err == os.ErrProcessDone {
		t.Errorf("no such signal: %v", err)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	until(t, "Signal says that it is done", func() bool { return c.Signal(0) == os.ErrProcessDone })
	if err := syscall.Kill(c.Pid, 0); err != nil {
		t.Errorf("it was reaped: %v", err)
	}
	if st := c.Wait(); st.Signal != 9 {
		t.Errorf("%+v", st)
	}
}

// A child in the hands of a debugger is not to be had before that lets go, which
// is nobody else's problem.
func TestTraced(t *testing.T) {
	checkFiles(t)
	c := cat(t)
	tracer := begin(t, role(t, "tracer", strconv.Itoa(c.Pid)))
	if got := tracer.line(); got != "<nil>" {
		t.Skip("no ptrace(2) here: ", got)
	}
	if err := c.Signal(syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if st := c.Wait(); st.Signal != 9 {
			t.Errorf("%+v", st)
		}
	})
	until(t, "its end is seen", func() bool { return goroutines("launch.(*children).reap(") == 1 })
	if st := begin(t, shell("exit 4")).Wait(); st.Code != 4 {
		t.Errorf("another one: %+v", st)
	}
	tracer.in.Close()
	wg.Wait()
}

// adopted is a process that another one has started.
func adopted(t *testing.T, script string) (foster *child, p *Process) {
	t.Helper()
	foster = begin(t, role(t, "foster", script))
	pid := foster.number()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	if p, err = Adopt(pid, os.NewFile(uintptr(fd), "pidfd")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { p.Close() })
	return foster, p
}

func TestAdopted(t *testing.T) {
	checkFiles(t)
	setReapTime(t, patience)
	for script, want := range map[string]Status{
		"kill -STOP $$; exit 7":        {Known: true, Code: 7},
		"kill -STOP $$; kill -KILL $$": {Known: true, Code: -1, Signal: 9},
	} {
		foster, p := adopted(t, script)
		if err := p.Signal(0); err != nil {
			t.Error(err)
		}
		got := make(chan Status)
		go func() { got <- p.Wait() }()
		until(t, "it waits", func() bool { return goroutines(waiting...) == 1 })
		until(t, "it is stopped", func() bool { return state(p.Pid) == "T" })
		foster.tell("reap")
		if err := p.Signal(syscall.SIGCONT); err != nil {
			t.Error(err)
		}
		if st := foster.line(); st != want.String() {
			t.Errorf("its parent saw %s", st)
		}
		if !kernelAtLeast(6, 15) {
			want = unknown
		}
		if st := <-got; st != want {
			t.Errorf("%+v, want %+v", st, want)
		}
		if err := p.Signal(syscall.SIGTERM); err != os.ErrProcessDone {
			t.Errorf("signal: %v", err)
		}
	}
}

func state(pid int) string {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	_, rest, _ := strings.Cut(string(b), ") ")
	return rest[:min(1, len(rest))]
}

// The status comes when the process was reaped, which is after its end.
func TestAdoptedReapedLate(t *testing.T) {
	if !kernelAtLeast(6, 15) {
		t.Skip("Linux keeps no exit status before 6.15")
	}
	checkFiles(t)
	setReapTime(t, patience)
	foster, p := adopted(t, "exit 7")
	got := make(chan Status)
	go func() { got <- p.Wait() }()
	until(t, "it waits", func() bool { return goroutines(append(waiting, "exitInfo")...) == 1 })
	foster.tell("reap")
	if st := <-got; st != (Status{Known: true, Code: 7}) {
		t.Errorf("%+v", st)
	}
}

func setReapTime(t *testing.T, d time.Duration) {
	old := reapTime
	reapTime = d
	t.Cleanup(func() { reapTime = old })
}

// A status that nobody has taken yet is not waited for without end.
func TestAdoptedNotReaped(t *testing.T) {
	checkFiles(t)
	setReapTime(t, time.Millisecond)
	foster, p := adopted(t, "exit 7")
	if st := p.Wait(); st != unknown {
		t.Errorf("%+v", st)
	}
	foster.tell("reap")
	if got := foster.line(); got != "exit status 7" {
		t.Error(got)
	}
}

func TestAdoptErrors(t *testing.T) {
	checkFiles(t)
	c := cat(t)
	pipe := func() *os.File {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		return r
	}
	closed := pipe()
	closed.Close()
	other, err := unix.PidfdOpen(c.Pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]*os.File{
		"not a pidfd": pipe(), "closed": closed, "another process": os.NewFile(uintptr(other), "pidfd"),
	} {
		if p, err := Adopt(os.Getpid(), f); err == nil {
			p.Close()
			t.Errorf("%s: adopted", name)
		}
	}
}

func TestFollow(t *testing.T) {
	checkFiles(t)
	c := begin(t, shell("exit 0"))
	p, err := Follow(c.Pid)
	if err != nil {
		t.Fatal(err)
	}
	c.Wait()
	if st := p.Wait(); st.Known != kernelAtLeast(6, 15) || st.Known && st.Code != 0 {
		t.Errorf("%+v", st)
	}
	p.Close()
	if _, err := Follow(c.Pid); !errors.Is(err, os.ErrProcessDone) {
		t.Errorf("a process that is gone: %v", err)
	}
}
