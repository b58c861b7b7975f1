package launch

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// known are the children of this process that Start made. There is one set
// because there is one process: whoever reaps the others has to know them.
var known = children{owner: map[int]*Process{}}

type children struct {
	mu    sync.Mutex
	owner map[int]*Process // by pid
}

// start runs fork and records the child before anybody can take it for an
// orphan.
func (c *children) start(p *Process, fork func() (int, error)) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := fork()
	if err == nil {
		p.Pid = pid
		c.owner[pid] = p
	}
	return err
}

// reap waits for a child that has ended, or is about to, and forgets it. The pid
// stays taken until wait4 returns, so the order can't hit a successor of the
// same pid.
func (c *children) reap(p *Process) Status {
	// A debugger that has not let go of the child delays this. It must not stop
	// everybody else.
	_ = ignoreEINTR(func() error { return unix.Waitid(unix.P_PID, p.Pid, nil, unix.WEXITED|unix.WNOWAIT, nil) })
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner[p.Pid] != p {
		return unknown // given up by Close
	}
	delete(c.owner, p.Pid)
	var ws syscall.WaitStatus
	err := ignoreEINTR(func() error { _, err := syscall.Wait4(p.Pid, &ws, 0, nil); return err })
	if err != nil {
		return unknown
	}
	return StatusOf(ws)
}

// forget makes an orphan of a child that has not been reaped.
func (c *children) forget(p *Process) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.owner[p.Pid] == p {
		delete(c.owner, p.Pid)
	}
}

// BecomeSubreaper makes orphaned descendants children of this process
// (PR_SET_CHILD_SUBREAPER, prctl(2)). From then on somebody has to reap them:
// see ReapOrphans.
func BecomeSubreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("become a subreaper: %w", err)
	}
	return nil
}

// ReapOrphans reaps, until stop is closed, the children of this process that
// nobody here started: what a worker left behind, or a parent that died in an
// upgrade. It must not run in a process that starts children by other means
// than Start, whose exit statuses it would take.
func ReapOrphans(stop <-chan struct{}) {
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGCHLD)
	defer signal.Stop(sigs)
	for {
		reapOrphans()
		select {
		case <-sigs:
		case <-stop:
			return
		}
	}
}

func reapOrphans() {
	// The list is made without the lock: whoever waits for it is about to reap a
	// worker and to start its replacement. A child that has come since is on
	// record by the time at which the lock is had.
	pids := Children()
	known.mu.Lock()
	defer known.mu.Unlock()
	for _, pid := range pids {
		if known.owner[pid] == nil {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// Children lists the children of this process, those that have ended and were
// not reaped included (/proc/pid/task/tid/children, proc(5)). While others reap,
// the kernel may leave some out.
func Children() []int {
	tasks, _ := os.ReadDir("/proc/self/task")
	var pids []int
	for _, t := range tasks {
		b, _ := os.ReadFile("/proc/self/task/" + t.Name() + "/children")
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// Descends reports whether a process descends from another one, of those that live.
func Descends(pid, ancestor int) bool {
	for range 64 { // deeper is not one that anybody should name
		switch pid = parentOf(pid); pid {
		case ancestor:
			return true
		case 0, 1:
			return false
		}
	}
	return false
}

// parentOf is the pid of a process's parent, or 0 (/proc/pid/stat, proc(5)).
func parentOf(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// pid (name) state ppid …, where the name can hold anything.
	rest := string(b[max(0, strings.LastIndexByte(string(b), ')')):])
	if f := strings.Fields(rest); len(f) > 2 {
		ppid, _ := strconv.Atoi(f[2])
		return ppid
	}
	return 0
}
