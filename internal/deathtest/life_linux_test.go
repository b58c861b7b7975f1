package deathtest_test

import (
	"slices"
	"syscall"
	"time"
)

// starting kills or stops a process while the service starts. Clients are there before it is: they
// wait, and if the service ends, for the one that is started then, as a supervisor would do.
func (tr trial) starting(kills bool) {
	l := tr.clients()
	ln := tr.asked()
	tr.start()
	taker, goOn := tr.taker(ln)
	first := tr.who("parent")[0]
	pid := tr.target(taker, 0)
	at, peers := tr.harm(kills, pid, goOn)
	anchored := !kills || tr.victim != theAnchor
	got := tr.comesUp(anchored, first)
	if kills && !slices.Contains(tr.may[tr.victim], got) {
		tr.t.Errorf("%s, not one of %q", got, tr.may[tr.victim])
	}
	switch {
	case got == ended:
		<-tr.exited
		tr.start()
		anchored = true
		tr.settle(anchored)
	case kills && anchored && tr.victim != newParent:
		tr.remembers(pid)
	}
	tr.upgrade()
	tr.settle(anchored)
	r := tr.loaded(l, at, peers)
	if got == ended { // which closes the connections that it had
		r = r.ExceptIdle()
	}
	tr.good(r)
	tr.stop(anchored)
}

// comesUp waits for what becomes of a start.
func (tr trial) comesUp(anchored bool, first int) outcome {
	tr.t.Helper()
	for limit := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		if len(tr.processes()) == 0 {
			return ended
		}
		what := tr.settled(anchored)
		switch {
		case what == "" && tr.parent() == first:
			return goesOn
		case what == "":
			return another
		case time.Now().After(limit):
			tr.t.Fatalf("after %v: %s", patience, what)
		}
	}
}

// stopping kills or stops a process while the service stops. All ends, and who comes then waits
// for the next one.
func (tr trial) stopping(kills bool) {
	tr.start()
	tr.settle(true)
	before := tr.parent()
	l := tr.load()
	ln := tr.asked()
	if err := syscall.Kill(tr.cmd.Process.Pid, syscall.SIGTERM); err != nil {
		tr.t.Fatal(err)
	}
	taker, goOn := tr.taker(ln)
	at, peers := tr.harm(kills, tr.target(taker, before), goOn)
	tr.ends()
	tr.start()
	tr.settle(true)
	tr.good(tr.loaded(l, at, peers).ExceptIdle()) // whose clients were told so, with an answer or by the end of the connection
	tr.stop(true)
}
