package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/home"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/wire"
)

// This file is about workers whose parent has died, and that report to this one: see package
// internal/home.

// Home is the descriptors of the two ends of a group's home. See NewHome.
type Home struct{ Report, Hear int }

// NewHome makes a home, where workers whose parent has died report to the next one. Whoever
// is to have them after this process's death, as a supervisor does that keeps descriptors,
// has to have both ends by then. They are the caller's to close.
func NewHome() (ends [2]int, err error) {
	ends[0], ends[1], err = home.Pair()
	return ends, err
}

// Left are workers whose parent has died, as far as they have reported, or their descriptors
// were kept.
type Left struct {
	arrivals []home.Arrival
	programs []program
	state    json.RawMessage
}

// Remember takes in what the dead parent's Snapshot was. Without it the workers are taken over
// all the same.
func (l *Left) Remember(state json.RawMessage) { l.state = state }

// Look takes in those that have reported in a group's home, as many as it may have; the others
// are heard later.
func (l *Left) Look(g Group) error {
	h, err := openHall(g)
	if err != nil {
		return err
	}
	defer h.Close()
	var errs []error
	for range maxLeft(g.Count) {
		a, ok, err := h.Queued()
		if err == nil {
			err = h.check(a)
		}
		switch {
		case !ok:
			return errors.Join(errs...)
		case err != nil:
			errs = append(errs, err)
		default:
			l.arrivals = append(l.arrivals, a)
		}
	}
	return errors.Join(errs...)
}

// Generations are the highest generation of them that was made of the recipe, and of all, 0
// if there are none.
func (l *Left) Generations(recipe string) (same, last int) {
	count := func(generation int, of string) {
		last = max(last, generation)
		if of == recipe {
			same = max(same, generation)
		}
	}
	for _, a := range l.arrivals {
		count(a.Generation, a.Recipe)
	}
	for _, p := range l.programs {
		count(p.generation, p.recipe)
	}
	return same, last
}

// Close gives them up: those of this binary drain.
func (l *Left) Close() {
	for _, a := range l.arrivals {
		a.Close()
	}
	for _, p := range l.programs {
		closeAll(p.files)
	}
	*l = Left{}
}

// hall hears those that report while the set decides.
type hall struct {
	*home.Hall
	group string
	heard int           // how many reports
	done  chan struct{} // closed when its goroutine has ended
}

// What workers of a group can do by reports that are not true is bounded for each parent.
const (
	// maxReports is how many are read: many more than workers can have to say.
	maxReports = 10_000
	// maxRefusals is how many that were not taken over are told of in the log.
	maxRefusals = 64
)

// maxLeft is how many workers may be taken over of a group that has count: many more than a
// dead parent can have left, and no more than this process can bear.
func maxLeft(count int) int { return 4*count + 64 }

func openHall(g Group) (*hall, error) {
	h, err := home.OpenHall(g.Home.Hear)
	return &hall{Hall: h, group: g.Name}, err
}

// check makes sure that a report is of a worker of the group whose home that is: it can't know
// another one's. Else its files are closed.
func (h *hall) check(a home.Arrival) error {
	if a.Group == h.group {
		return nil
	}
	a.Close()
	return fmt.Errorf("%w: process %d comes to the home of group %q and says that it is of %.64q", home.ErrReport, a.Pid, h.group, a.Group)
}

// openHalls begins to hear, first those who have reported already.
func (s *Set) openHalls() {
	for _, g := range s.groups {
		if g.Home.Hear == 0 {
			continue
		}
		h, err := openHall(g.Group)
		if err != nil {
			s.log.Error("workers that a dead parent has left can't be taken over", "group", g.Name, "error", err)
			continue
		}
		s.halls = append(s.halls, h)
	}
	left := s.cfg.Left
	s.cfg.Left = Left{}
	if len(left.state) > 0 {
		var err error
		if s.past, err = decode(left.state); err != nil {
			s.log.Warn("the history of the previous parent can't be read", "error", err)
		}
		s.adoptGroups(s.past)
	}
	for _, p := range left.programs {
		s.takeProgram(p)
	}
	for _, a := range left.arrivals {
		s.arrive(a)
	}
	s.mourn()
	s.hearHalls()
}

func (s *Set) hearHalls() {
	for _, h := range s.halls {
		h.done = make(chan struct{})
		s.wg.Go(func() { s.listenIn(h) })
	}
}

func (s *Set) listenIn(h *hall) {
	defer close(h.done)
	for ; h.heard < maxReports; h.heard++ {
		a, err := h.Next()
		if err == nil {
			err = h.check(a)
		}
		ev := event{arrival: &a}
		switch {
		case errors.Is(err, home.ErrReport):
			ev = event{lost: err}
		case err != nil:
			return // halted, or closed
		}
		if !s.send(ev) {
			a.Close()
			return
		}
	}
	s.log.Error("no more reports of workers without a parent are heard: there were too many", "group", h.group, "reports", h.heard)
}

// haltHalls leaves those who report to whoever decides next.
func (s *Set) haltHalls() {
	for _, h := range s.halls {
		h.Halt()
		s.quiet(h.done)
	}
}

func (s *Set) closeHalls() {
	for _, h := range s.halls {
		h.Close()
	}
	s.cfg.Left.Close()
}

// refused says that a report leads to nothing.
func (s *Set) refused(log *slog.Logger, why string) {
	if s.refusals++; s.refusals > maxRefusals {
		return
	}
	log.Warn("a worker that reports for want of a parent is not taken over", "reason", why)
	if s.refusals == maxRefusals {
		s.log.Warn("no more of these are told of")
	}
}

// arrive takes a worker over that has reported.
func (s *Set) arrive(a home.Arrival) {
	defer a.Close()
	g := s.groupNamed(a.Group)
	identity := fmt.Sprintf("%s/%d/%d/%d/%d", a.Group, a.Slot, a.ID, a.Generation, a.Pid)
	refuse := func(why string) { s.refused(s.logIdentity(identity), why) }
	if in := s.memberOf(a.Pid); in != nil {
		if !in.deaf || in.dead != nil {
			refuse("it has one")
			return
		}
		s.rejoin(in, a)
		return
	}
	if g.found >= maxLeft(g.Count) {
		refuse(fmt.Sprintf("of its group %d were", g.found))
		return
	}
	e := Estate{Files: map[string]*os.File{
		kindPidfd + identity: a.Opened[home.Pidfd], kindChannel + identity: a.Opened[home.Channel],
	}}
	for kind, name := range map[string]string{kindCrash: home.Crash, "stdout:": home.Stdout, "stderr:": home.Stderr} {
		if f := a.Opened[name]; f != nil {
			e.Files[kind+identity] = f
		}
	}
	clear(a.Opened)
	defer e.Close()
	in, err := s.adoptOne(identity, e, s.past, postState{})
	if err != nil {
		refuse(err.Error())
		return
	}
	g.found++
	in.torn = 0 // nobody else has ever read from this channel
	s.takeLeft(in, a.Recipe, s.past.Workers[identity])
}

// takeLeft makes a worker of a dead parent one of this set's.
func (s *Set) takeLeft(in *incarnation, recipe string, ws workerState) {
	g := in.group
	in.stale = in.generation != s.cfg.Generation || recipe != s.cfg.Recipe
	if in.generation == s.cfg.Generation {
		g.nextID = max(g.nextID, in.id+1)
	}
	if !in.stale { // then nobody else is about to replace it
		in.limits = in.as.Recycle.draw(in)
	}
	s.join(in, ws)
	s.roles()
	if !in.program {
		s.post.Doubtful(router.Peer(in.key))
	}
	s.logOf(in).Info("worker taken over from a parent that has died", "stale", in.stale)
	if s.cfg.Found != nil {
		s.cfg.Found(in.pid())
	}
	fault.Point(fault.LeftFound)
	g.ended = false // if the set stops, it is told, too
}

// memberOf is the worker of that process.
func (s *Set) memberOf(pid int) *incarnation {
	for _, in := range s.byKey {
		if in.pid() == pid {
			return in
		}
	}
	return nil
}

// rejoin is for a worker whose channel this process has given up: it takes that for its
// parent's death, and hears now that it is to drain.
func (s *Set) rejoin(in *incarnation, a home.Arrival) {
	channel := a.Opened[home.Channel]
	delete(a.Opened, home.Channel)
	conn, err := wire.NewConn(channel)
	if err != nil {
		s.logOf(in).Error("the channel of a worker can't be used", "error", err)
		return
	}
	if in.conn != nil {
		in.conn.Close()
		s.quiet(in.reader) // which may be about to send something to this very goroutine
	}
	if !in.deaf || in.dead != nil { // meanwhile
		conn.Close()
		return
	}
	in.settle = time.Time{}
	in.deaf = false
	s.connectTo(in, conn, nil)
	s.read(in)
	in.tell(wire.Drain{Cmd: wire.CmdDrain, TimeoutMS: max(1, in.as.DrainTimeout.Milliseconds()), Exit: true, Stop: s.stopping})
}
