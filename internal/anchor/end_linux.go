package anchor

import (
	"errors"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// look takes in what has ended, and reports whether the service has.
func (a *anchor) look() (over bool) {
	main, ended := a.main, a.ended()
	left := a.reap()
	if !a.dead && a.main == main && (!left || ended && !slices.Contains(launch.Children(), a.main.Pid)) {
		// It was not this process's child: the older parent that had started it
		// has reaped it, or is going to.
		status := launch.Status{Code: -1}
		if a.ended() {
			status = a.main.Wait()
		}
		a.died(status)
	}
	if a.dead && a.recover() {
		return false
	}
	if a.dead {
		a.store.close() // by which workers see that there will be no other parent
	}
	if !left {
		return a.dead
	}
	switch {
	case a.killing:
		a.kill() // what was killed has left others
	case a.dead && a.grace == nil && a.status.Success():
		// The service has ended in order. What is left is none of its workers; it may
		// be a parent that was replaced and is about to end.
		a.grace = time.After(leftTime)
	case a.dead && a.grace == nil:
		a.log.Error("the parent is gone, what it left drains", "pid", a.main.Pid, "status", a.status.String(), "grace", a.cfg.Grace)
		a.grace = time.After(a.cfg.Grace)
	}
	return false
}

// ended reports whether main has ended, no matter whose child it is.
func (a *anchor) ended() bool { return errors.Is(a.main.Signal(0), os.ErrProcessDone) }

// reap takes in every child that has ended and reports whether some are left.
func (a *anchor) reap() (left bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		case pid == a.main.Pid:
			a.died(launch.StatusOf(ws))
		}
		delete(a.left, pid)
		a.statuses.put(pid, uint32(ws))
	}
}

// died is called when main has ended, and once more if its status comes later. A
// successor may have spoken up already.
func (a *anchor) died(status launch.Status) {
	if main := a.main; !a.dead {
		// What it has said counts, be its end known first or not.
		a.hear(main.Pid)
		if a.main != main {
			return // it has named another one
		}
	}
	a.status = status
	if a.dead {
		return
	}
	a.dead, a.diedAt = true, time.Now()
	if pid := a.wish.pid; pid != 0 && alive(pid) && a.follow(pid) == nil {
		a.log.Warn("the parent is gone, its successor takes over", "status", status.String(), "pid", pid)
		return
	}
	a.refuse()
}

// alive reports whether there is such a process, and it has not ended.
func alive(pid int) bool {
	p, err := launch.Follow(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Signal(0) == nil
}

// graceEnded ends what has been left behind: after an orderly stop it is asked first.
func (a *anchor) graceEnded() {
	if !a.status.Success() || a.asking {
		a.kill()
		return
	}
	pids := launch.Children()
	a.log.Warn("the service has stopped, but has left processes behind: they are ended", "pids", pids)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	a.asking, a.grace = true, time.After(leftTime)
}

// kill ends what is left of the service.
func (a *anchor) kill() {
	pids := launch.Children()
	if !a.killing && len(pids) > 0 {
		a.log.Error("killing what is left of the service", "pids", pids)
	}
	a.killing, a.grace = true, nil
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a child that only this goroutine reaps
	}
}
