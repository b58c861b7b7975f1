package anchor

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// take follows what the parent says. As with systemd's NotifyAccess=main, only
// the parent may name another; when it is dead, a process that it left may name
// itself: the successor that it was bringing up, or the predecessor that goes on.
func (a *anchor) take(n *note) {
	if n.foreign() {
		// Parents are this process's user. A worker that is another's must not become one
		// when there is none: its program would be executed here.
		if !a.strange {
			a.strange = true
			a.log.Warn("notifications of another user are ignored", "from", n.Pid, "user", n.UID)
		}
		return
	}
	a.answer(n)
	if formats, ok := n.Get(varFormat); ok && reads(formats) && descendant(n.Pid) {
		a.able = n.Pid
	}
	if n.Pid == a.wish.pid && !a.dead {
		a.wish.keep(n)
		return
	}
	parent := n.Pid == a.main.Pid && !a.dead // also if it names another now
	switch {
	case n.mainPid == 0:
	case n.mainPid == a.main.Pid:
		if n.Pid == a.main.Pid {
			a.lost = false // it goes on without the successor
		}
	case n.Pid == a.main.Pid && !a.dead, n.Pid == n.mainPid && a.dead:
		// The parent may name one that has just died, the last to be heard of.
		if err := a.follow(n.mainPid); err != nil {
			a.log.Error("the new main process can't be followed", "error", err)
			a.lost = errors.Is(err, os.ErrProcessDone)
		}
	case n.Pid == n.mainPid && a.prev != nil && n.Pid == a.prev.Pid && a.prev.Pid == a.givenUp:
		// It has come to, and takes itself for the parent.
		a.log.Error("a parent that was given up names itself: killed", "pid", n.Pid)
		_ = a.prev.Signal(syscall.SIGKILL)
	case n.Pid == n.mainPid && descendant(n.Pid):
		a.wishes(n)
	default:
		a.log.Warn("MAINPID from a process that is not the parent: ignored", "from", n.Pid, "pid", n.mainPid)
	}
	if parent || n.Pid == a.main.Pid && !a.dead {
		a.forward(n.Text)
		a.act(n)
		a.keeps(n)
		a.lives(n)
		if n.Says("READY", "1") {
			a.begin()
		}
		if n.Says("STOPPING", "1") {
			a.stops = max(a.stops, 1) // it was asked to, maybe not by a signal: if it dies now, that was all
		}
	}
}

// hear takes in what a process has said until now. What others have said comes after that.
func (a *anchor) hear(pid int) {
	a.inbox.pick(a.log, func(n note) bool {
		// What take ignores is not kept.
		if n.Pid != pid && !n.foreign() {
			return false
		}
		a.takeNow(n)
		return true
	})
}

func (a *anchor) takeNow(n note) {
	a.take(&n)
	n.Done()
}

// foreign reports whether a note is another user's, and so not the service's.
func (n *note) foreign() bool { return n.UID != os.Geteuid() && n.UID != 0 }

// begin hands over what has waited for a parent that is ready.
func (a *anchor) begin() {
	if !a.ready && len(a.left) > 0 {
		a.drainForeign()
	}
	a.ready, a.served = true, true
	early := a.early
	a.early = nil
	for _, sig := range early {
		a.send(sig)
	}
}

// watch sends word when a process has ended.
func (a *anchor) watch(p *launch.Process) {
	a.watches.Go(func() {
		if p.Ends() {
			select {
			case a.ends <- struct{}{}:
			default:
			}
		}
	})
}

// follow makes a descendant the main process.
func (a *anchor) follow(pid int) error {
	p, err := launch.Follow(pid)
	if err != nil {
		return err
	}
	// The descriptor came first: if the pid is a descendant's now, and the
	// descriptor's process was not reaped, they are one.
	if !descendant(pid) {
		p.Close()
		return fmt.Errorf("process %d is not one of this service", pid)
	}
	if a.prev != nil {
		a.prev.Close()
	}
	a.prev, a.main, a.upAt, a.hang = a.main, p, time.Now(), nil
	a.watch(p)
	a.dead, a.grace, a.asking, a.lost, a.due, a.hold = false, nil, false, false, nil, nil
	// Whoever hands over, or dies, has not stopped the service: only now is it
	// certain that a stop which was sent before was of no use.
	if a.asked != 0 {
		a.keep(a.asked)
	}
	if a.ready {
		a.begin()
	}
	if a.wish.pid == pid {
		a.grant()
	}
	return nil
}
