package workerset

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// Commit ends a trial: the workers that stand by begin to serve, the rest of the
// count is started, and the workers of the estate, if there are any, are taken
// over and then replaced, Surge at a time. It takes ownership of the estate's
// files. With an error, ErrEnded or ctx's, they are closed, and library workers
// drain.
func (s *Set) Commit(ctx context.Context, e Estate) error {
	err := s.do(ctx, func() {
		s.committed = true
		// These first: somebody is to accept, the others do anyway.
		for _, g := range s.groups {
			for _, in := range g.members {
				if !in.program {
					s.maySoonServe(in)
				}
				s.apply(in, lifecycle.Commit)
			}
		}
		s.adopt(e)
		if s.halls == nil {
			s.openHalls()
		}
		if s.stopping {
			s.end(s.ending)
		}
	})
	if err != nil {
		e.Close()
	}
	return err
}

// Hold puts off the replacement of adopted workers that are well until Release: as
// long as whoever has given them may take them back. Call it before Commit.
func (s *Set) Hold() { _ = s.do(context.Background(), func() { s.holding = true }) }

// Release ends Hold.
func (s *Set) Release() {
	_ = s.do(context.Background(), func() {
		s.holding = false
		for key := range s.byKey {
			s.post.Wake(router.Peer(key))
		}
	})
}

// adopt takes an estate's workers over. What can't be understood is closed: a
// library worker whose channel ends drains and exits.
func (s *Set) adopt(e Estate) {
	var st estateState
	if len(e.State) > 0 {
		var err error
		if st, err = decode(e.State); err != nil {
			s.log.Warn("the history of the previous parent can't be read", "error", err)
		}
	}
	if e.Dead {
		s.past = st
	}
	post := s.takePost(e)
	if post.Residue == nil {
		post.Residue = st.Residue
	}
	s.adoptGroups(st)
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		identity, ok := strings.CutPrefix(name, kindPidfd)
		if !ok {
			continue
		}
		in, err := s.adoptOne(identity, e, st, post)
		if err != nil {
			s.logIdentity(identity).Error("a worker of the previous parent could not be taken over, it drains", "error", err)
			continue
		}
		s.join(in, st.Workers[identity])
		if in.deaf && !in.foreign() && !st.Workers[identity].Degraded {
			s.apply(in, lifecycle.Lost)
		}
	}
	s.roles()
	s.adoptPost(post, e)
	for name := range e.Files {
		s.log.Warn("a descriptor of the previous parent belongs to nothing, it is closed", "name", name)
	}
	e.Close()
}

// join makes a worker that was taken over one of the set's, in the state that it had.
func (s *Set) join(in *incarnation, ws workerState) {
	in.group.members = append(in.group.members, in)
	s.byKey[in.key] = in
	delete(s.past.Workers, in.identity())
	s.follow(in)
	s.hand(in)
	s.apply(in, lifecycle.Adopted)
	switch {
	case ws.Degraded:
		s.apply(in, lifecycle.Tolerated)
	case in.foreign():
		s.retrace(in, ws.State)
	}
}

// adoptGroups takes over what is known of the groups.
func (s *Set) adoptGroups(st estateState) {
	for _, g := range s.groups {
		gs, ok := st.Groups[g.Name]
		if !ok {
			continue
		}
		g.restarts += gs.Restarts
		g.failures += gs.Failures
		for slot, n := range gs.SlotRestarts {
			g.slotRestarts[slot] += n
		}
		own := g.deaths // of workers that were on trial
		g.deaths = nil
		g.record(append(gs.Deaths, own...)...)
		g.budget.Full = gs.BudgetFull
		maps.Copy(g.common, gs.Common)
		if g.configured == gs.Configured && gs.Count > 0 {
			_ = s.scale(g, gs.Count) // scaled at run time, and nobody has said otherwise since
		}
	}
}

// logIdentity is logOf for one that is not taken over yet.
func (s *Set) logIdentity(identity string) *slog.Logger {
	group, n, err := parseIdentity(identity)
	if err != nil {
		return s.log.With("worker", identity)
	}
	return s.log.With("worker", fmt.Sprintf("%s/%d", group, n[0]), "id", n[1], "pid", n[3], "worker_generation", n[2])
}

// retrace takes a foreign worker, which can't say what it does, to the state that the
// previous parent had it in.
func (s *Set) retrace(in *incarnation, state string) {
	switch state {
	case lifecycle.Starting.String(), lifecycle.Standby.String():
		s.apply(in, lifecycle.Spawned)
		s.couldServe(in)
	case lifecycle.Draining.String():
		s.apply(in, lifecycle.Leaving)
	case lifecycle.Condemned.String():
		s.apply(in, lifecycle.Failed)
	case lifecycle.Terminating.String(), lifecycle.Killing.String():
		s.apply(in, lifecycle.Kill)
	}
}

// adoptOne makes an incarnation of the estate's descriptors of one worker, and takes
// them out of the estate.
func (s *Set) adoptOne(identity string, e Estate, st estateState, post postState) (in *incarnation, err error) {
	take := func(kind string) *os.File {
		f := e.Files[kind+identity]
		delete(e.Files, kind+identity)
		return f
	}
	ws := st.Workers[identity]
	now := time.Now()
	in = &incarnation{
		key: s.nextKey(), state: lifecycle.Spawning, since: now, began: now, readyAt: ws.Ready,
		adopted: true, stale: true, told: toldUnknown, torn: tear(post.Residue[identity]),
		nth: ws.Nth, paid: ws.Paid,
		cause: ws.Cause, reason: ws.Reason, blamedAt: ws.Blamed,
		dismissed: ws.Dismissed, terminated: ws.Terminated, killed: ws.Killed, let: ws.Let, drainAt: ws.Drain,
		greeted: ws.Greeted, asked: ws.Asked, text: ws.Text,
		beats: ws.Beats, beat: now, hungAfter: time.Duration(ws.HungMS) * time.Millisecond,
		showed: ws.Showed, online: ws.Online,
		handouts: handouts{queue: ws.Handouts, flying: ws.Flying && len(ws.Handouts) > 0, acks: ws.Acks, parcel: ws.Parcel},
		talks:    ws.Talks, calls: ws.Calls, lastCall: ws.LastCall,
		crash: take(kindCrash), recipe: ws.Recipe,
	}
	if ws.Exiting {
		in.report.Phase, in.report.ExitCode = wire.PhaseExiting, ws.ExitCode
	}
	pidfd, channel, notify := take(kindPidfd), take(kindChannel), take(kindNotify)
	in.program = ws.Program || notify != nil
	for _, name := range []string{"stdout", "stderr"} {
		if f := take(name + ":"); f != nil {
			in.streams = append(in.streams, &stream{r: f, name: name, rest: ws.Printed[name]})
		}
	}
	name, n, err := parseIdentity(identity)
	if err == nil {
		in.slot, in.id, in.generation = n[0], n[1], n[2]
		in.proc, err = launch.Adopt(n[3], pidfd)
	} else {
		pidfd.Close()
	}
	if channel != nil {
		res := wire.Residue{Bytes: post.Residue[identity]}
		for i := 0; e.Files[fmt.Sprintf("%s%d/%s", kindResidue, i, identity)] != nil; i++ {
			res.Files = append(res.Files, take(fmt.Sprintf("%s%d/", kindResidue, i)))
		}
		conn, cerr := wire.Resume(channel, res)
		if cerr == nil {
			s.connectTo(in, conn, post.Rest[identity])
		} else {
			s.logIdentity(identity).Error("the channel of a worker can't be used", "error", cerr)
		}
	}
	if notify != nil {
		var nerr error
		if in.inbox, nerr = sdnotify.ResumeInbox(notify); nerr != nil {
			s.logIdentity(identity).Error("the notifications of a worker can't be read", "error", nerr)
		}
	}
	if err != nil {
		in.close()
		return nil, err
	}
	in.deaf = in.conn == nil
	in.group = s.groupNamed(name)
	if !ws.Began.IsZero() {
		in.began = ws.Began
	}
	if in.readyAt.IsZero() {
		// Until it says something else it counts as one that serves.
		in.readyAt = now.Add(-resetAfter)
	}
	if in.hungAfter == 0 {
		in.hungAfter = in.group.HungAfter
	}
	in.as = in.group.Group
	if ws.DrainSignal > 0 {
		in.as.DrainSignal = syscall.Signal(ws.DrainSignal) // that of the program that it is
	}
	in.announced = toldOf(ws)
	return in, nil
}

// groupNamed is the group of that name, or a new one that is to have no workers:
// the program's new version has dropped it.
func (s *Set) groupNamed(name string) *group {
	for _, g := range s.groups {
		if g.Name == name {
			return g
		}
	}
	g := newGroup(Group{
		Name: name, Program: &s.cfg.Program, Surge: 1, StartTimeout: DefaultStartTimeout, DrainTimeout: drain.DefaultTimeout,
		DrainSignal: syscall.SIGTERM, Heartbeat: DefaultHeartbeat, HungAfter: DefaultHungAfter,
	})
	g.dropped = true
	s.groups = append(s.groups, g)
	return g
}
