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
							trial{hold(t, st.name, patience), st, v}.starting(true)
						case stops:
							trial{hold(t, st.name, patience), st, v}.stopping(true)
						default:
							trial{open(t, st.name, patience), st, v}.run()
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
		if st.way == resumes && st.may[theAnchor][0] == ended { // nobody starts a parent meanwhile
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
							trial{hold(t, st.name, stopTime-2*time.Second), st, v}.starting(false)
						case stops:
							trial{hold(t, st.name, stopTime-2*time.Second), st, v}.stopping(false)
						default:
							trial{open(t, st.name, stopTime-2*time.Second), st, v}.stopped()
						}
					})
				}
			}
		})
	}
}

func (tr trial) stopped() {
	tr.settle(true)
	before := tr.parent()
	l := tr.load()
	ln := tr.asked()
	tr.begin()
	taker, goOn := tr.taker(ln)
	at, peers := tr.harm(false, tr.target(taker, before), goOn)
	tr.settle(true)
	tr.upgrade()
	tr.settle(true)
	r := l.Stop().ExceptAt(at, peers)
	if tr.victim == oldParent || tr.victim == newParent {
		r = r.ExceptIdle() // a worker that drains keeps them for so long, as nobody says who takes them
	}
	tr.good(r)
	tr.stop(true)
}

// harm kills a process, or stops it for a time, before the one that takes the step goes on. It
// returns when that was, and whose connections a worker had.
func (tr trial) harm(kills bool, pid int, goOn func()) (at time.Time, peers map[string]bool) {
	tr.t.Helper()
	if kills {
		at, peers = tr.kill(pid)
		goOn()
		return at, peers
	}
	at, peers = tr.freeze(pid)
	goOn()
	<-time.After(stopTime)
	_ = syscall.Kill(pid, syscall.SIGCONT) // nobody else has its pid: it is this process's to reap, or the service's
	return at, peers
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
	*shop
	step
	victim victim
}

func (tr trial) run() {
	tr.settle(true)
	before := tr.parent()
	fds, anchorFds := tr.descriptors(before), tr.descriptors(tr.cmd.Process.Pid)
	l := tr.load()
	ln := tr.asked()
	tr.begin()
	taker, goOn := tr.taker(ln)
	pid := tr.target(taker, before)
	at, peers := tr.harm(true, pid, goOn)

	anchored := tr.victim != theAnchor
	if slices.Contains(tr.may[tr.victim], ended) {
		tr.ends()
		return
	}
	tr.settle(anchored)
	got := tr.outcome(before)
	if !slices.Contains(tr.may[tr.victim], got) {
		tr.t.Errorf("%s, not one of %q", got, tr.may[tr.victim])
	}
	if !tr.untold(tr.victim) && anchored {
		tr.remembers(pid)
	}
	tr.upgrade()
	tr.settle(anchored)
	tr.flat("the parent", tr.parent(), fds)
	if anchored {
		tr.flat("the anchor", tr.cmd.Process.Pid, anchorFds)
	}
	tr.t.Log(got)
	tr.good(tr.loaded(l, at, peers))
	tr.stop(anchored)
}

// loaded ends a load, once clients of all kinds have been served again.
func (tr trial) loaded(l *load.Load, at time.Time, peers map[string]bool) load.Result {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil {
		tr.t.Error(err)
	}
	return l.Stop().ExceptAt(at, peers)
}

// good is the verdict.
func (tr trial) good(r load.Result) {
	tr.t.Helper()
	if err := r.Check(); err != nil {
		tr.t.Errorf("clients noticed: %v", err)
	}
	tr.t.Logf("%d requests, %d of the dead process's own lost", r.Started, r.Excused)
}

// load begins, and has had an answer to every kind of client.
func (tr trial) load() *load.Load {
	tr.t.Helper()
	l := tr.clients()
	ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
	defer cancel()
	if err := l.WaitEach(ctx, 1); err != nil {
		tr.t.Fatal(err)
	}
	return l
}

func (tr trial) clients() *load.Load {
	tr.t.Helper()
	l, err := load.Start(tr.t.Context(), load.Config{
		Addr: tr.addr, Rate: 20, Clients: map[load.Kind]int{load.New: 2, load.Slow: 1, load.KeepAlive: 3}, SlowMS: 100,
	})
	if err != nil {
		tr.t.Fatal(err)
	}
	return l
}

// parent is the one that decides.
func (s *shop) parent() int {
	s.t.Helper()
	st, _, err := s.control.Status(s.t.Context())
	if err != nil {
		s.t.Fatal(err)
	}
	return st.Pid
}

// begin has the step taken.
func (tr trial) begin() {
	tr.t.Helper()
	pid, sig := tr.cmd.Process.Pid, syscall.SIGHUP
	if tr.way == resumes {
		pid, sig = tr.parent(), syscall.SIGKILL
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
		return tr.cmd.Process.Pid
	case theAgent:
		return pick(tr.who("worker agent/"))
	case aWorker:
		workers := tr.who("worker web/")
		if slices.Contains(workers, taker) {
			return taker
		}
		return pick(workers) // older ones may be about to end
	}
	parents := tr.who("parent")
	others := slices.DeleteFunc(slices.Clone(parents), func(pid int) bool { return pid == before })
	if tr.victim == newParent {
		return pick(others)
	}
	if slices.Contains(parents, before) {
		return before
	}
	return pick(others) // the one before is gone by now
}

// freeze stops a process, and returns whose connections it has, and when.
func (tr trial) freeze(pid int) (at time.Time, peers map[string]bool) {
	tr.t.Helper()
	ctx, cancel := context.WithTimeout(tr.t.Context(), patience)
	defer cancel()
	err := procs.Freeze(ctx, pid)
	at = time.Now()
	if err == nil && tr.victim == aWorker {
		peers, err = procs.Peers(pid)
	}
	if err != nil {
		tr.t.Fatal(err)
	}
	return at, peers
}

// kill kills a process, and returns whose connections it had, and when.
func (tr trial) kill(pid int) (at time.Time, peers map[string]bool) {
	tr.t.Helper()
	at, peers = tr.freeze(pid)
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		tr.t.Fatal(err)
	}
	for alive(pid) {
		time.Sleep(time.Millisecond)
	}
	return at, peers
}

// alive reports whether a process has not ended.
func alive(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, state, _ := strings.Cut(string(b), ") ")
	return err == nil && state[0] != 'Z' && state[0] != 'X'
}

// outcome is who decides now.
func (tr trial) outcome(before int) outcome {
	tr.t.Helper()
	pid := tr.parent()
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

// remembers checks that the history tells of the death.
func (tr trial) remembers(pid int) {
	tr.t.Helper()
	for limit := time.Now().Add(settleTime); ; time.Sleep(10 * time.Millisecond) {
		h, _, err := tr.control.History(tr.t.Context(), "", 0)
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
	switch tr.victim {
	case theAnchor: // which is none of the service's
		return true
	case oldParent:
		return e.Parent != nil && e.Parent.Pid == pid
	case newParent: // as such, or as an upgrade that has failed
		return e.Parent != nil && e.Parent.Pid == pid || e.Upgrade != nil && e.Upgrade.Result == string(control.Failed)
	}
	return e.Death != nil && e.Death.Pid == pid
}

// upgrade asks for one, which has to work.
func (s *shop) upgrade() {
	s.t.Helper()
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	ev, err := s.control.Upgrade(ctx, control.WaitServe, func(control.Event) {})
	if err != nil || ev.Result != control.Done && ev.Result != control.Probation {
		s.t.Errorf("the next upgrade: %+v, %v", ev, err)
	}
}

// flat checks that a process has no more descriptors than before, but for a connection or two.
func (s *shop) flat(what string, pid, before int) {
	s.t.Helper()
	limit := time.Now().Add(settleTime)
	for s.descriptors(pid) > before+2 {
		if time.Now().After(limit) {
			fds, _ := procs.FDs(pid)
			s.t.Errorf("%s had %d descriptors, and has %d: %v", what, before, len(fds), fds)
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// stop ends the service, of which nothing may be left.
func (s *shop) stop(anchored bool) {
	s.t.Helper()
	pid := s.cmd.Process.Pid
	if !anchored {
		pid = s.parent()
	}
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		s.t.Fatal(err)
	}
	s.ends()
}

// ends waits until nothing is left of the service.
func (s *shop) ends() {
	s.t.Helper()
	limit := time.Now().Add(patience)
	for len(s.processes()) > 0 {
		if time.Now().After(limit) {
			s.t.Fatalf("it does not end: %v", s.processes())
		}
		time.Sleep(10 * time.Millisecond)
	}
	<-s.exited
}
