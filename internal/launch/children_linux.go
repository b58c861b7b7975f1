package launch

import (
	"bytes"
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
var known = children{pids: map[int]bool{}}

type children struct {
	mu   sync.Mutex
	pids map[int]bool
}

// start runs fork and records the child before anybody can take it for an
// orphan.
func (c *children) start(fork func() (int, error)) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	pid, err := fork()
	if err == nil {
		c.pids[pid] = true
	}
	return pid, err
}

// reap waits for a child that has ended and forgets it. The pid stays taken
// until wait4 returns, so the order can't hit a successor of the same pid.
func (c *children) reap(pid int) Status {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.pids, pid)
	var ws syscall.WaitStatus
	err := ignoreEINTR(func() error { _, err := syscall.Wait4(pid, &ws, 0, nil); return err })
	if err != nil {
		return Status{Code: -1}
	}
	return statusOf(ws)
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
		if !known.pids[pid] {
			_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
		}
	}
}

// Children lists the children of this process, those that have ended and were
// not reaped included (/proc/pid/task/tid/children, proc(5)).
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

// CountOrphans counts the children of this process that live, that nobody here
// started, and whose environment, as it was when they were executed, has the
// entry env ("KEY=value").
func CountOrphans(env string) int { return eachOrphan(env, func(int) {}) }

// KillOrphans sends SIGKILL to what CountOrphans counts. It is how a generation
// that failed is cleared away with all that it had started.
func KillOrphans(env string) int {
	return eachOrphan(env, func(pid int) { _ = syscall.Kill(pid, syscall.SIGKILL) })
}

func eachOrphan(env string, fn func(pid int)) int {
	// While the lock is held nobody reaps, so a pid stays what it is.
	known.mu.Lock()
	defer known.mu.Unlock()
	n := 0
	for _, pid := range Children() {
		if known.pids[pid] {
			continue
		}
		// Empty for one that has ended.
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
		if bytes.Contains(append([]byte{0}, b...), []byte("\x00"+env+"\x00")) {
			fn(pid)
			n++
		}
	}
	return n
}
