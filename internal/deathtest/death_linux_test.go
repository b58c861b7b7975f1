package deathtest_test

import (
	"context"
	"flag"
	"fmt"
	"hash/fnv"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/shop"
)

// TestDeaths kills each process at each step. All rows take minutes, so that without
// DEATHS=all, or a -run that names a row, every second step is taken with one of the victims.
//
//	go test ./internal/deathtest -run 'TestDeaths/old:_yielded/agent'
//	DEATHS=all go test ./internal/deathtest
func TestDeaths(t *testing.T) {
	for n, st := range steps {
		if n%2 == 1 && !everything() {
			continue
		}
		t.Run(string(st.way)+"/"+st.name, func(t *testing.T) {
			for i, v := range victims {
				if st.may[v] != nil && chosen(st, i) {
					t.Run(string(v), func(t *testing.T) {
						t.Parallel()
						switch st.way {
						case starts:
							held(t, st, v, true).starting(true)
						case stops:
							held(t, st, v, true).stopping(true)
						default:
							opened(t, st, v, true).run()
						}
					})
				}
			}
		})
	}
}

// stopTime is longer than any process may be silent, and than an upgrade may take.
const stopTime = 7 * time.Second

// TestStops stops each process (SIGSTOP) at each step for longer than its deadline, and then
// continues it, if it is still there: it does no harm any more. Without DEATHS=all that is one
// of the victims at some of the steps.
func TestStops(t *testing.T) {
	for n, st := range steps {
		if st.alone() { // nobody starts a parent meanwhile
			continue
		}
		t.Run(string(st.way)+"/"+st.name, func(t *testing.T) {
			t.Parallel() // nearly all of it is waiting
			for i, v := range victims {
				if st.may[v] != nil && chosen(st, i) && (n%8 == 0 || everything()) {
					t.Run(string(v), func(t *testing.T) {
						t.Parallel()
						switch st.way {
						case starts:
							held(t, st, v, false).starting(false)
						case stops:
							held(t, st, v, false).stopping(false)
						default:
							opened(t, st, v, false).stopped()
						}
					})
				}
			}
		})
	}
}

func (tr trial) stopped() {
	tr.Settle(true)
	before := tr.Parent()
	fds, anchorFds := tr.Descriptors(before), tr.Descriptors(tr.Anchor)
	l := tr.load()
	ln := tr.asked()
	tr.act()
	taker, goOn := tr.taker(ln)
	pid := tr.target(taker, before)
	lost, long := tr.harm(false, pid, goOn)
	tr.Settle(true)
	if tr.gone(pid) && !tr.untold(tr.victim) {
		tr.remembers(pid)
	}
	tr.Upgrade()
	tr.Settle(true)
	tr.Flat("the parent", tr.Parent(), fds)
	tr.Flat("the anchor", tr.Anchor, anchorFds)
	r, c := excused(l, lost)
	if tr.victim == oldParent || tr.victim == newParent || long {
		r = r.ExceptIdle() // a worker that drains keeps them for so long, as nobody says who takes them
	}
	tr.good(r)
	tr.Stop(true)
	if !long {
		tr.paid(false, c, stopTime)
	}
}

// harm kills a process, or stops it for a time, before the one that takes the step goes on. It
// returns what a worker had, and whether that other one was missed.
func (tr trial) harm(kills bool, pid int, goOn func() bool) (lost shop.Loss, long bool) {
	tr.t.Helper()
	do := tr.Freeze
	if kills {
		do = tr.Kill
	}
	lost, err := do(pid)
	if err != nil {
		tr.t.Fatal(err)
	}
	long = goOn()
	if !kills {
		<-time.After(stopTime)
		_ = syscall.Kill(pid, syscall.SIGCONT) // nobody else has its pid: it is this process's to reap, or the service's
	}
	return lost, long
}

// everything reports whether all rows are to be tested.
func everything() bool {
	return os.Getenv("DEATHS") == "all" || strings.Count(runFlag(), "/") > 0
}

// chosen is one of the victims of a step, the same in every run.
func chosen(st step, i int) bool {
	if everything() {
		return true
	}
	h := fnv.New32()
	fmt.Fprint(h, st.way, st.name)
	var there []int
	for i, v := range victims {
		if st.may[v] != nil {
			there = append(there, i)
		}
	}
	return there[int(h.Sum32())%len(there)] == i
}

// runFlag is what -run says.
func runFlag() string { return flag.Lookup("test.run").Value.String() }

// trial is one death.
type trial struct {
	*shop.Shop
	t *testing.T
	step
	victim victim
}

// opened is one of a service that runs.
func opened(t *testing.T, st step, v victim, kills bool) trial {
	t.Helper()
	return trial{shop.Open(t, environ(st, kills)...), t, st, v}
}

// held is one of a service that is not started yet.
func held(t *testing.T, st step, v victim, kills bool) trial {
	t.Helper()
	return trial{shop.Hold(t, environ(st, kills)...), t, st, v}
}

// environ tells the service how long its processes may take: who is killed stands still for a
// moment before, which may be a long one, and who is stopped does so for longer than it may.
func environ(st step, kills bool) []string {
	drain, upgrade, hung := shop.Patience, shop.Patience, shop.Patience
	if !kills {
		drain, upgrade, hung = stopTime-2*time.Second, stopTime-2*time.Second, stopTime-3*time.Second
	}
	return []string{
		envStep + "=" + st.name, envDrain + "=" + drain.String(), envUpgrade + "=" + upgrade.String(), shop.EnvHung + "=" + hung.String(),
	}
}

func (tr trial) run() {
	tr.Settle(true)
	before := tr.Parent()
	fds, anchorFds := tr.Descriptors(before), tr.Descriptors(tr.Anchor)
	l := tr.load()
	ln := tr.asked()
	tr.act()
	taker, goOn := tr.taker(ln)
	pid := tr.target(taker, before)
	at := time.Now()
	lost, long := tr.harm(true, pid, goOn)

	anchored := tr.victim != theAnchor
	if slices.Contains(tr.may[tr.victim], ended) {
		tr.Ends()
		l.Stop() // nobody listens any more
		tr.paid(true, cost{}, time.Since(at))
		return
	}
	tr.Settle(anchored)
	took := time.Since(at)
	got := tr.outcome(before)
	if !slices.Contains(tr.may[tr.victim], got) {
		tr.t.Errorf("%s, not one of %q", got, tr.may[tr.victim])
	}
	if !tr.untold(tr.victim) && anchored {
		tr.remembers(pid)
	}
	tr.Upgrade()
	tr.Settle(anchored)
	tr.Flat("the parent", tr.Parent(), fds)
	if anchored {
		tr.Flat("the anchor", tr.Anchor, anchorFds)
	}
	tr.t.Log(got)
	r, c := tr.loaded(l, lost)
	if long {
		r = r.ExceptIdle()
	}
	tr.good(r)
	tr.Stop(anchored)
	if !long {
		tr.paid(true, c, took)
	}
}

// loaded ends a load, once clients of all kinds have been served again.
func (tr trial) loaded(l *load.Load, lost shop.Loss) (load.Result, cost) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), shop.Patience)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil {
		tr.t.Error(err)
	}
	return excused(l, lost)
}

// excused ends a load. What clients have lost with the process is no failure, but a cost.
func excused(l *load.Load, lost shop.Loss) (load.Result, cost) {
	all := l.Stop()
	r := lost.Excuse(all)
	return r, cost{Lost: r.Excused, Idle: all.ClosedIdle}
}

// good is the verdict.
func (tr trial) good(r load.Result) {
	tr.t.Helper()
	if err := r.Check(); err != nil {
		tr.t.Errorf("clients noticed: %v", err)
	}
	tr.t.Logf("%d requests", r.Started)
}

// load begins, and has had an answer to every kind of client.
func (tr trial) load() *load.Load {
	tr.t.Helper()
	l := tr.clients()
	ctx, cancel := context.WithTimeout(tr.t.Context(), shop.Patience)
	defer cancel()
	if err := l.WaitEach(ctx, 1); err != nil {
		tr.t.Fatal(err)
	}
	return l
}

func (tr trial) clients() *load.Load {
	tr.t.Helper()
	l, err := load.Start(tr.t.Context(), load.Config{
		Addr: tr.Addr, Rate: 20, Clients: map[load.Kind]int{load.New: 2, load.Slow: 1, load.KeepAlive: 3}, SlowMS: 100,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return l
}

// act has the step taken.
func (tr trial) act() {
	tr.t.Helper()
	pid, sig := tr.Anchor, syscall.SIGHUP
	if tr.way == resumes {
		pid, sig = tr.Parent(), syscall.SIGKILL
	}
	if err := syscall.Kill(pid, sig); err != nil {
		tr.t.Fatal(err)
	}
}

// target is who dies.
func (tr trial) target(taker, before int) int {
	tr.t.Helper()
	pick := func(pids []int) int {
		if len(pids) == 0 {
			tr.t.Fatalf("there is no %s", tr.victim)
		}
		return pids[len(pids)-1]
	}
	switch tr.victim {
	case theAnchor:
		return tr.Anchor
	case theAgent:
		return pick(tr.Who("worker agent/"))
	case aWorker:
		workers := tr.Who("worker web/")
		if slices.Contains(workers, taker) {
			return taker
		}
		return pick(workers) // older ones may be about to end
	}
	parents := tr.Who("parent")
	others := slices.DeleteFunc(slices.Clone(parents), func(pid int) bool { return pid == before })
	if tr.victim == newParent {
		return pick(others)
	}
	if slices.Contains(parents, before) {
		return before
	}
	return pick(others) // the one before is gone by now
}

// outcome is who decides now.
func (tr trial) outcome(before int) outcome {
	tr.t.Helper()
	pid := tr.Parent()
	env, err := procs.Environ(pid)
	if err != nil {
		tr.t.Fatal(err)
	}
	switch upgraded := slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, "HANDOVER_SUCCESSION_FD=") }); {
	case pid == before:
		return oldDecides
	case upgraded:
		return newDecides
	}
	return another
}

// gone reports whether a process of the service has ended.
func (tr trial) gone(pid int) bool {
	return !slices.ContainsFunc(tr.Processes(), func(p shop.Process) bool { return p.PID == pid })
}

// remembers checks that the history tells of the death.
func (tr trial) remembers(pid int) {
	tr.t.Helper()
	for limit := time.Now().Add(shop.SettleTime); ; time.Sleep(10 * time.Millisecond) {
		h, _, err := tr.Control.History(tr.t.Context(), "", 0)
		if err != nil {
			tr.t.Fatal(err)
		}
		if slices.ContainsFunc(h.Entries, func(e history.Entry) bool { return tr.tells(e, pid) }) {
			return
		}
		if time.Now().After(limit) {
			tr.t.Errorf("the history does not tell how process %d has ended: %+v", pid, h.Entries)
			return
		}
	}
}

// tells reports whether an entry is about the death.
func (tr trial) tells(e history.Entry, pid int) bool {
	failed := e.Upgrade != nil && e.Upgrade.Result == string(control.Failed)
	switch tr.victim {
	case theAnchor: // which is none of the service's
		return true
	case oldParent:
		return e.Parent != nil && e.Parent.Pid == pid
	case newParent: // as such, or as an upgrade that has failed
		return e.Parent != nil && e.Parent.Pid == pid || failed
	}
	return e.Death != nil && e.Death.Pid == pid || failed // of which the worker was
}
