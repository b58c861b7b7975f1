package launch

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

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
	known.mu.Lock()
	defer known.mu.Unlock()
	for _, pid := range Children() {
		if known.owner[pid] == nil {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// Children lists the children of this process, those that have ended and were
// not reaped included (/proc/pid/task/tid/children, proc(5)). While others reap,
// the kernel may leave some out.
func Children() []int { return childrenOf("self") }

func childrenOf(process string) []int {
	dir := "/proc/" + process + "/task/"
	tasks, _ := os.ReadDir(dir)
	var pids []int
	for _, t := range tasks {
		b, _ := os.ReadFile(dir + t.Name() + "/children")
		for _, f := range strings.Fields(string(b)) {
			if pid, err := strconv.Atoi(f); err == nil {
				pids = append(pids, pid)
			}
		}
	}
	return pids
}

// CountOrphans counts the processes that live, that descend from this one
// through a child which nobody here started, and whose environment, as it was
// when they were executed, has the entry env ("KEY=value"). A process that is
// being executed just now has no environment yet, and counts.
func CountOrphans(env string) int {
	marked, starting := orphans(env, func(int) {})
	return len(marked) + starting
}

// KillOrphans sends SIGKILL to what CountOrphans counts, and to what that starts
// meanwhile, and returns how many that were. It is how a generation that failed
// is cleared away with all that it had started.
func KillOrphans(env string) int {
	killed := map[int]bool{}
	for range 100 {
		more := false
		marked, starting := orphans(env, func(pidfd int) { _ = unix.PidfdSendSignal(pidfd, unix.SIGKILL, nil, 0) })
		for _, pid := range marked {
			more = more || !killed[pid]
			killed[pid] = true
		}
		switch {
		case starting > 0:
			time.Sleep(time.Millisecond) // the kernel is executing it
		case !more:
			return len(killed)
		}
	}
	return len(killed)
}

// orphans calls fn with a pidfd of each orphan that has the entry in its
// environment and returns their pids, and the number of those that have no
// environment yet.
func orphans(env string, fn func(pidfd int)) (marked []int, starting int) {
	// While the lock is held nobody here reaps, so a child's pid stays what it is.
	known.mu.Lock()
	defer known.mu.Unlock()
	var todo []int
	for _, pid := range Children() {
		if known.owner[pid] == nil {
			todo = append(todo, pid)
		}
	}
	for len(todo) > 0 {
		pid := todo[0]
		todo = append(todo[1:], childrenOf(strconv.Itoa(pid))...)
		// What is below a child is reaped by others. The pidfd comes first: it
		// is of the process whose environment is read, or of one that is gone.
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		if !shows(fd, unix.POLLIN) {
			environ, executed := environOf(pid)
			switch {
			case !executed:
				starting++
			case bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+env+"\x00")):
				fn(fd)
				marked = append(marked, pid)
			}
		}
		unix.Close(fd)
	}
	return marked, starting
}

// environOf returns a living process's environment. In the middle of execve(2)
// it has none, and no arguments either; some programs have none for ever.
func environOf(pid int) (environ []byte, executed bool) {
	dir := "/proc/" + strconv.Itoa(pid)
	for range 10 { // it may get both in between, and may be executed again
		environ, err := readOnce(dir + "/environ")
		if err != nil || len(environ) > 0 {
			return environ, true
		}
		if args, err := readOnce(dir + "/cmdline"); err == nil && len(args) == 0 {
			return nil, false
		}
	}
	return nil, true
}

// readOnce reads a file of a process with one read(2), which is all of one image.
// A second one finds nothing when the process has been executed anew.
func readOnce(name string) ([]byte, error) {
	for size := 32 << 10; ; size *= 4 {
		f, err := os.Open(name)
		if err != nil {
			return nil, err
		}
		buf := make([]byte, size)
		n, err := f.Read(buf)
		f.Close()
		if n == size {
			continue
		}
		if err == io.EOF {
			err = nil
		}
		return buf[:n], err
	}
}
