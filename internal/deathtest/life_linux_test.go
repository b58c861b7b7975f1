package deathtest_test

import (
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/shop"
)

// starting kills or stops a process while the service starts. Clients are there before it is: they
// wait, and if the service ends, for the one that is started then, as a supervisor would do.
func (tr trial) starting(kills bool) {
	l := tr.clients()
	ln := tr.asked()
	tr.Start()
	taker, goOn := tr.taker(ln)
	first := tr.Who("parent")[0]
	pid := tr.target(taker, 0)
	at := time.Now()
	lost, long := tr.harm(kills, pid, goOn)
	anchored := !kills || tr.victim != theAnchor
	got := tr.comesUp(anchored, first)
	took := time.Since(at)
	if kills && !slices.Contains(tr.may[tr.victim], got) {
		tr.t.Errorf("%s, not one of %q", got, tr.may[tr.victim])
	}
	switch {
	case got == ended:
		<-tr.Exited()
		tr.Start()
		anchored = true
		tr.Settle(anchored)
	case kills && anchored && tr.victim != newParent:
		tr.remembers(pid)
	}
	tr.Upgrade()
	tr.Settle(anchored)
	r, c := tr.loaded(l, lost)
	if got == ended || long { // which closes the connections that it had
		r = r.ExceptIdle()
	}
	tr.good(r)
	tr.Stop(anchored)
	if !long {
		tr.paid(kills, c, took)
	}
}

// comesUp waits for what becomes of a start.
func (tr trial) comesUp(anchored bool, first int) outcome {
	tr.t.Helper()
	for limit := time.Now().Add(shop.SettleTime); ; time.Sleep(10 * time.Millisecond) {
		if len(tr.Processes()) == 0 {
			return ended
		}
		what := tr.Settled(anchored)
		switch {
		case what == "" && tr.Parent() == first:
			return goesOn
		case what == "":
			return another
		case time.Now().After(limit):
			tr.t.Fatalf("after %v: %s", shop.SettleTime, what)
		}
	}
}

// stopping kills or stops a process while the service stops. All ends, and who comes then waits
// for the next one.
func (tr trial) stopping(kills bool) {
	tr.Start()
	tr.Settle(true)
	before := tr.Parent()
	l := tr.load()
	ln := tr.asked()
	if err := syscall.Kill(tr.Anchor, syscall.SIGTERM); err != nil {
		tr.t.Fatal(err)
	}
	taker, goOn := tr.taker(ln)
	pid := tr.target(taker, before)
	at := time.Now()
	lost, long := tr.harm(kills, pid, goOn)
	tr.Ends()
	took := time.Since(at)
	if kills && took > shop.SettleTime {
		tr.t.Errorf("it has ended after %v", took)
	}
	tr.Start()
	tr.Settle(true)
	r, c := tr.loaded(l, lost)
	tr.good(r.ExceptIdle()) // whose clients were told so, with an answer or by the end of the connection
	tr.Stop(true)
	if !long {
		tr.paid(kills, c, took)
	}
}
