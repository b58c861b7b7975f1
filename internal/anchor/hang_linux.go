package anchor

import (
	"bytes"
	"fmt"
	"os"
	"syscall"
	"time"
)

// lateTime is how late this process may be before it is believed to have been stopped itself,
// with the parent or not.
const lateTime = time.Second

// lives takes in that the parent says so.
func (a *anchor) lives(n *note) {
	if n.Says(varLives, "1") {
		a.heard()
	}
}

// quarters are the parts in which HungAfter passes: this process may stand still for as long as it,
// and has to notice.
const quarters = 4

// heard waits for the next sign.
func (a *anchor) heard() {
	if a.cfg.HungAfter > 0 {
		a.quiet = 0
		a.awaitQuarter()
	}
}

func (a *anchor) awaitQuarter() {
	quarter := a.cfg.HungAfter / quarters
	a.hangAt, a.hang = time.Now().Add(quarter), time.After(quarter)
}

// hung kills a parent that has said nothing for too long: when it comes to, it must not decide
// any more. Its workers serve on until another one takes them over.
func (a *anchor) hung() {
	a.hang = nil
	switch {
	case a.dead, a.killing:
	case time.Since(a.hangAt) > lateTime, traced(a.main.Pid):
		a.heard()
	case a.quiet < quarters-1:
		a.quiet++
		a.awaitQuarter()
	default:
		a.log.Error("the parent hangs: killed", "pid", a.main.Pid, "silent", a.cfg.HungAfter)
		_ = a.main.Signal(syscall.SIGKILL)
	}
}

// traced reports whether somebody debugs a process (TracerPid, proc_pid_status(5)).
func traced(pid int) bool {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	_, rest, ok := bytes.Cut(b, []byte("\nTracerPid:\t"))
	return ok && len(rest) > 0 && rest[0] != '0'
}
