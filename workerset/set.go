package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/handover-go/handover/internal/cgroup"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// Errors of a set's methods.
var (
	// ErrEnded: the set stops or has stopped, or was given away.
	ErrEnded = errors.New("workerset: the set has ended")
	// ErrNoGroup: there is no group of that name.
	ErrNoGroup = errors.New("workerset: no such group")
	// ErrRollStopped: a replacement could not start; the workers that were to be
	// replaced go on serving.
	ErrRollStopped = errors.New("workerset: the roll stopped half way")
	// ErrTooManyRestarts: Config.MaxRestarts was exceeded.
	ErrTooManyRestarts = errors.New("workerset: too many workers had to be replaced")
)

// Set is a running set of workers. Its methods may be called from any goroutine,
// while Run runs; those that wait for the set's loop wait for Run to begin, too.
type Set struct {
	cfg    Config
	log    *slog.Logger
	events chan event
	cmds   chan func()
	stop   chan struct{} // has room for one: Stop was called
	kill   chan struct{} // has room for one: Kill was called
	quit   chan struct{} // closed when the loop ends
	wg     sync.WaitGroup

	// Everything below belongs to the loop.
	groups    []*group
	committed bool
	stopping  bool
	stopAt    time.Time       // Stop was called, and the workers serve until then
	holding   bool            // workers of older generations stay
	ending    lifecycle.Event // while stopping: Stop or Kill
	yielded   bool
	yieldedAt time.Time
	held      []event // while yielded
	over      bool    // given away: end without a word to the workers
	waiters   []*waiter
	print     *printer  // of what programs print
	left      []*stream // of programs that have ended, held by what they have started
	report    Report
	fatal     error // why the set stops by itself
	lastKey   int
	byKey     map[int]*incarnation
	post      *post
	halls     []*hall
	refusals  int         // of reports
	past      estateState // of a parent that has died, as far as it is known and those workers have not come
	mournAt   time.Time   // when to look whether they have ended; zero: there are none
	quick     bool        // nothing has happened but messages
	complete  bool        // all groups have been what is wanted
	service   wire.Service
	said      int                  // how often that has changed
	news      *news                // what Config.Events is told; nil: nobody is
	lingering map[*incarnation]int // of workers that have exited, how many of their streams have not ended
	oomKills  int                  // of those that the kernel has counted, how many are accounted for
}

type group struct {
	Group
	configured int // Count as it was configured
	members    []*incarnation
	nextID     int
	slots      map[int]*slot
	halted     error // why a roll stopped
	dropped    bool  // not in this generation's configuration: goes with its last worker
	restarts   int
	failures   int
	deaths     []Death                    // the last ones
	budget     lifecycle.Budget           // of restarts of workers that served
	recent     []time.Time                // of restarts, as far as MaxRestarts wants to know
	common     map[string]json.RawMessage // by socket: what workers of Node's cluster have in common
	gauge      gauge
	open       bool // waits for no other group
	ended      bool // was told to, while the set stops
	found      int  // workers of it that a dead parent had left and that were taken over

	slotRestarts map[int]int // by slot, of the restarts
}

// slot is what has to be remembered of a slot between two incarnations.
type slot struct {
	failures  int // workers in a row that came to nothing
	notBefore time.Time
	last      error     // why the last of them did
	owes      time.Time // since when its next worker waits for the group's budget; zero: it does not
}

// waiter is a method call that waits for something to become true.
type waiter struct {
	cond func() (bool, error)
	done chan error
}

// Report sums up how a set stopped, from the call of Stop or Kill on.
type Report struct {
	Exited     int // workers that went by themselves
	Terminated int // workers that did not drain in time and got SIGTERM
	Killed     int // workers that got SIGKILL, most of them after SIGTERM
	Cut        int // connections that workers said they cut because the drain's time was up
}

// New checks a configuration and makes a set of it. Nothing is started before
// Run.
func New(cfg Config) (*Set, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Set{
		cfg:       cfg,
		log:       cfg.Logger,
		events:    make(chan event),
		cmds:      make(chan func()),
		stop:      make(chan struct{}, 1),
		kill:      make(chan struct{}, 1),
		quit:      make(chan struct{}),
		lingering: map[*incarnation]int{},
		committed: !cfg.Trial,
		byKey:     map[int]*incarnation{},
		post:      newPost(),
	}
	s.oomKills, _ = cgroup.OOMKills()
	for _, g := range cfg.Groups {
		s.groups = append(s.groups, newGroup(g))
	}
	return s, nil
}

func newGroup(g Group) *group {
	return &group{
		Group: g, configured: g.Count, nextID: 1, slots: map[int]*slot{}, slotRestarts: map[int]int{}, common: map[string]json.RawMessage{},
		budget: lifecycle.Budget{Burst: g.Burst, Per: g.Per},
	}
}

// Run starts the workers and keeps them, until Stop, Kill or Abandon. It returns
// when all goroutines that it started have ended: nil, or ErrTooManyRestarts. Call
// it once.
func (s *Set) Run() error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	s.news = startNews(s.cfg.Events)
	defer s.news.close()
	s.print = newPrinter(s.cfg.Stdout, s.cfg.Stderr)
	defer s.print.close()
	if s.committed {
		s.openHalls()
	}
	s.plan()
	s.roles()
	var next time.Time
	for !s.ended() {
		if !s.quick {
			s.wake()
			next = s.nextDeadline()
			timer.Reset(time.Until(next))
		}
		s.quick = false
		select {
		case fn := <-s.cmds:
			fn()
		case ev := <-s.events:
			s.handle(ev)
		case <-s.post.poke:
			s.quick = true
			if !s.yielded {
				s.post.listen()
			}
		case <-s.stop:
			s.stopLater()
		case <-s.kill:
			s.end(lifecycle.Kill)
		case <-timer.C:
		}
		late := s.woken(next, time.Now())
		s.quick = s.quick && late < 0
		if s.quick {
			s.deliver()
			continue
		}
		s.deadlines()
		s.plan()
		s.endNext()
		s.moves()
		s.roles()
		s.tellService()
		s.deliver()
	}
	if s.stopping {
		fault.Point(fault.StopEnds)
	}
	close(s.quit)
	s.closeHalls()
	s.post.endpoint.Close(s.fatal)
	for _, g := range s.groups {
		for _, in := range g.members {
			in.close()
		}
	}
	for _, st := range s.left {
		st.close()
	}
	s.wg.Wait()
	s.post.endpoint.Wait()
	s.post.closeFiles()
	for _, ev := range s.held {
		closeFiles(ev.files)
	}
	for in := range s.lingering {
		s.announce(in, Event{Kind: EventClose})
	}
	s.wake()
	for _, w := range s.waiters {
		w.done <- ErrEnded
	}
	return s.fatal
}

func (s *Set) ended() bool {
	if s.over {
		return true
	}
	return s.stopping && !slices.ContainsFunc(s.groups, func(g *group) bool { return len(g.members) > 0 })
}

// stopLater is Stop: with a delay the workers are told, and serve on.
func (s *Set) stopLater() {
	if s.cfg.StopDelay == 0 || !s.committed || s.stopping {
		s.end(lifecycle.Stop)
		return
	}
	if !s.stopAt.IsZero() {
		return
	}
	s.stopAt = time.Now().Add(s.cfg.StopDelay)
	s.log.Info("stopping: the workers serve on for a while", "delay", s.cfg.StopDelay)
	for _, g := range s.groups {
		for _, in := range g.members {
			in.tell(wire.Order{Cmd: wire.CmdStopping})
		}
	}
}

// end begins the end of all workers. While the set is given away it only takes
// note.
func (s *Set) end(ev lifecycle.Event) {
	if !s.stopping || ev == lifecycle.Kill {
		s.ending = ev
	}
	fault.Point(fault.StopBegins)
	s.stopping = true
	if s.yielded {
		return
	}
	for _, g := range s.groups {
		g.ended = false
	}
	s.endNext()
	fault.Point(fault.StopTold)
}

// wake answers those whose wait is over.
func (s *Set) wake() {
	kept := s.waiters[:0]
	for _, w := range s.waiters {
		if ok, err := w.cond(); ok || err != nil {
			w.done <- err
		} else {
			kept = append(kept, w)
		}
	}
	clear(s.waiters[len(kept):])
	s.waiters = kept
}

// oversleep is how late this process may be before that is taken for a stop of its
// own (SIGSTOP, a frozen cgroup, a machine that is paused): what it has not looked at was not late.
const oversleep = time.Second

// woken puts all deadlines off if it is too late for what was due next, and returns how late it is.
func (s *Set) woken(due, now time.Time) (late time.Duration) {
	if late = now.Sub(due); late > oversleep {
		s.shift(late + oversleep) // what was said meanwhile is still to be read
	}
	return late
}

// shift puts all deadlines off.
func (s *Set) shift(d time.Duration) {
	for _, g := range s.groups {
		for _, in := range g.members {
			if !in.deadline.IsZero() {
				in.deadline = in.deadline.Add(d)
			}
			in.beat = in.beat.Add(d)
		}
	}
}

// linger goes on passing on what the children of a program print that has ended.
func (s *Set) linger(in *incarnation, st *stream) {
	s.left = slices.DeleteFunc(s.left, func(st *stream) bool {
		select {
		case <-st.done:
			return true
		default:
			return false
		}
	})
	st.begin()
	s.left = append(s.left, st)
	s.lingering[in]++
	s.wg.Go(func() {
		st.run()
		st.r.Close()
		s.send(event{in: in, closed: true})
	})
}

// deadlines fires those that have passed.
func (s *Set) deadlines() {
	if s.yielded {
		return
	}
	now := time.Now()
	passed := func(t time.Time) bool { return !t.IsZero() && !now.Before(t) }
	if passed(s.stopAt) && !s.stopping {
		s.end(lifecycle.Stop)
	}
	if passed(s.mournAt) {
		s.mourn()
	}
	for _, g := range s.groups {
		s.look(g, now)
		for _, in := range slices.Clone(g.members) {
			switch {
			case passed(in.settle):
				in.settle = time.Time{}
				s.halfEnded(in)
			case passed(in.deadline):
				in.deadline = time.Time{}
				if in.state == lifecycle.Starting {
					s.startTimedOut(in)
				}
				s.apply(in, lifecycle.Deadline)
			case passed(in.hungAt()):
				in.beats = false
				s.blame(in, wire.CauseHung, fmt.Sprintf("silent for %v", in.hungAfter))
				s.apply(in, lifecycle.Hung)
			case passed(in.readyAfter()):
				s.couldServe(in)
			case passed(in.handouts.retry):
				s.hand(in)
			}
		}
	}
}

// nextDeadline is when the loop has to look again, at the latest.
func (s *Set) nextDeadline() time.Time {
	now := time.Now()
	next := now.Add(time.Hour)
	if s.yielded {
		return next
	}
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(next) {
			next = t
		}
	}
	if !s.stopping {
		sooner(s.stopAt)
	}
	sooner(s.mournAt)
	for _, g := range s.groups {
		for _, in := range g.members {
			sooner(in.settle)
			sooner(in.deadline)
			if t := in.hungAt(); !t.IsZero() {
				sooner(t)
				sooner(now.Add(in.hungAfter / 4)) // to notice, long before that, that it is this process which stands still
			}
			sooner(in.readyAfter())
			sooner(in.gathers())
			sooner(in.handouts.retry)
		}
		for _, sl := range g.slots {
			if sl.notBefore.After(now) {
				sooner(sl.notBefore)
			}
		}
		sooner(s.nextWear(g, now))
		sooner(g.nextLook())
		if g.owing() || s.committed && len(s.due(g)) > 0 {
			sooner(g.budget.Next(now))
		}
	}
	return next
}

func (s *Set) nextKey() int {
	s.lastKey++
	return s.lastKey
}

func (g *group) slot(n int) *slot {
	if g.slots[n] == nil {
		g.slots[n] = &slot{}
	}
	return g.slots[n]
}

func (g *group) member(key int) *incarnation {
	for _, in := range g.members {
		if in.key == key {
			return in
		}
	}
	panic(fmt.Sprintf("workerset: no worker with key %d in group %q", key, g.Name)) // Plan names only what it was shown
}
