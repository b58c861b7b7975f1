package anchor

import (
	"bytes"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// backTime is how long a parent that has named a successor may take to name itself
// again when that one has died.
const backTime = 2 * time.Second

// What marks processes, in their environment: one that an upgrade has started, until it
// is the parent, and a worker.
const (
	markSuccessor = "HANDOVER_SUCCESSION_FD="
	markWorker    = "HANDOVER_CHANNEL_FD="
)

// recover brings up a parent in place of one that has died, and reports whether there
// will be one. It is called until there is: first those may speak up who can go on, the
// one that the dead one had replaced, and the one that was to replace it.
func (a *anchor) recover() bool {
	e := ending{status: a.status, ready: a.ready, served: a.served, lost: a.lost, stops: a.stops}
	if a.killing || !e.unexpected() {
		a.due = nil
		return false
	}
	if a.due != nil {
		return true
	}
	since := time.Since(a.diedAt)
	if a.prev != nil && since < backTime && a.prev.Signal(0) == nil {
		a.hold = time.After(backTime - since)
		return true
	}
	if heirs := slices.DeleteFunc(a.marked(markSuccessor), anothers); len(heirs) > 0 {
		if since < a.cfg.Grace {
			if a.hold == nil {
				a.log.Warn("the parent is gone in an upgrade: what was to replace it is waited for", "status", a.status.String(), "pids", heirs)
			}
			a.hold = time.After(a.cfg.Grace - since)
			return true
		}
		a.log.Error("what an upgrade had started does not become the parent: killed", "pids", heirs)
		for _, pid := range heirs {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		return true // until they have ended
	}
	wait := a.backoff.next(a.diedAt.Sub(a.upAt))
	a.log.Error("the parent is gone: another one is started, which goes on with what it left",
		"pid", a.main.Pid, "status", a.status.String(), "in", wait, "grace", a.cfg.Grace)
	a.due = time.After(wait)
	a.leave()
	return true
}

// restart starts another parent.
func (a *anchor) restart() {
	old := a.main
	if err := a.start(a.store.passed()); err != nil {
		wait := a.backoff.next(0)
		a.log.Error("the parent can't be started again", "error", err, "wait", wait)
		a.due = time.After(wait)
		return
	}
	old.Close()
	if a.prev != nil {
		a.givenUp = a.prev.Pid
	}
	a.dead, a.ready, a.lost, a.asked, a.grace = false, false, false, 0, nil
	a.heard() // it may hang before it says anything
}

// marked are the children whose environment has that mark, but for those that are or
// were the parent.
func (a *anchor) marked(mark string) (pids []int) {
	for _, pid := range launch.Children() {
		if pid == a.main.Pid || a.prev != nil && pid == a.prev.Pid {
			continue
		}
		// It is empty for one that has ended.
		if env, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ"); bytes.HasPrefix(env, []byte(mark)) || bytes.Contains(env, []byte("\x00"+mark)) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// anothers reports whether a process is another user's, and so no parent. (To whom its files in
// /proc belong does not say so: a process can make them root's, see PR_SET_DUMPABLE.)
func anothers(pid int) bool {
	for line := range strings.Lines(readFile("/proc/" + strconv.Itoa(pid) + "/status")) {
		if v, ok := strings.CutPrefix(line, "Uid:"); ok {
			ids := strings.Fields(v) // real, effective, saved, of the file system
			return len(ids) < 2 || ids[1] != strconv.Itoa(os.Geteuid())
		}
	}
	return true // it has gone
}

// leave gives what a dead parent has left its time to drain.
func (a *anchor) leave() {
	for _, pid := range launch.Children() {
		if _, ok := a.left[pid]; !ok && pid != a.main.Pid {
			a.left[pid] = time.Now().Add(a.cfg.Grace)
		}
	}
	a.leftDue = time.After(a.cfg.Grace)
}

// keeps leaves those alone that the parent has taken over.
func (a *anchor) keeps(n *note) {
	v, _ := n.Get(varKeeps)
	for _, pid := range strings.Fields(v) {
		if n, err := strconv.Atoi(pid); err == nil {
			delete(a.left, n)
		}
	}
}

// drainForeign asks for a drain those programs that do not see by themselves that their
// parent is gone, once another one serves.
func (a *anchor) drainForeign() {
	own, err := os.Stat("/proc/self/exe")
	for _, pid := range a.marked(markWorker) {
		if _, ok := a.left[pid]; !ok || err != nil {
			continue
		}
		exe, xerr := os.Stat("/proc/" + strconv.Itoa(pid) + "/exe")
		if xerr == nil && !os.SameFile(own, exe) {
			_ = syscall.Kill(pid, a.cfg.DrainSignal)
		}
	}
}

// clearLeft ends those whose time to drain is over.
func (a *anchor) clearLeft() {
	a.leftDue = nil
	var next time.Time
	for pid, limit := range a.left {
		switch {
		case !time.Now().Before(limit):
			a.log.Error("what a dead parent has left does not end: killed", "pid", pid)
			_ = syscall.Kill(pid, syscall.SIGKILL) // a child that only this goroutine reaps
		case next.IsZero() || limit.Before(next):
			next = limit
		}
	}
	if !next.IsZero() {
		a.leftDue = time.After(time.Until(next))
	}
}
