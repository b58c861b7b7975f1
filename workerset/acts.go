package workerset

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/handover-go/handover/internal/lifecycle"
)

// This file is what can be asked for about one worker.

// ErrGivenAway: the set does not decide at the moment. It does again after Resume; or
// somebody else does.
var ErrGivenAway = errors.New("workerset: the set is given away")

// RestartWorker replaces one worker by a new one, and returns when that one serves and
// the old one accepts no more: it may still drain. By its place one that only starts is
// replaced, too, and a slot that is empty is filled without further delay. A replacement that can't start
// ends the wait with ErrRollStopped, and the old one goes on. In a group whose roll has
// stopped that roll goes on, too. The end of ctx ends the wait, not the restart. While the
// set is given away it is ErrGivenAway.
func (s *Set) RestartWorker(ctx context.Context, which Which) error {
	var g *group
	slot := which.Slot
	return s.await(ctx, func() error {
		in, err := s.find(which, true)
		switch g = s.groupOf(which.Group); {
		case err == nil:
			g, slot = in.group, in.slot
			s.replace(in)
		case !errors.Is(err, ErrNoWorker) && !errors.Is(err, ErrAmbiguous), g == nil, slot > g.Count:
			return err
		default: // nobody is there, or only such who go, or one that replaces another
			delete(g.slots, slot)
			for _, in := range g.members {
				if in.slot == slot {
					s.replace(in)
				}
			}
		}
		return nil
	}, func() (bool, error) { return s.slotServed(g, slot) })
}

// DrainWorker is RestartWorker that returns when the worker has ended, too. One that
// drains already is waited for.
func (s *Set) DrainWorker(ctx context.Context, which Which) error {
	var in *incarnation
	return s.await(ctx, func() (err error) {
		if in, err = s.find(which, true); err == nil {
			s.replace(in)
		}
		return err
	}, func() (bool, error) { return s.goneAndServed(in) })
}

// KillWorker ends one worker at once, by SIGKILL: what it serves is cut. It returns when
// its process has ended and its slot is served by another, if it is to be. That it was
// killed is neither a failure of the worker's nor a restart that is counted. Otherwise it
// is as RestartWorker.
func (s *Set) KillWorker(ctx context.Context, which Which) error {
	var in *incarnation
	return s.await(ctx, func() (err error) {
		if in, err = s.find(which, false); err != nil {
			return err
		}
		delete(in.group.slots, in.slot)
		in.dismissed = in.dismissed || in.cause == ""
		s.apply(in, lifecycle.Kill)
		return nil
	}, func() (bool, error) { return s.goneAndServed(in) })
}

// FindWorker is the worker that is meant, if there is one, and one only. Whoever replaces
// workers means none of those that go already, where there are others.
func (s *Set) FindWorker(ctx context.Context, which Which, replaces bool) (w Worker, err error) {
	derr := s.do(ctx, func() {
		var in *incarnation
		if in, err = s.find(which, replaces); err == nil {
			w = in.status()
		}
	})
	if derr != nil {
		return w, derr
	}
	return w, err
}

// replace marks a worker as one to be replaced. Whoever goes is being replaced already.
func (s *Set) replace(in *incarnation) {
	if !in.status().goes() {
		in.stale, in.worn = true, ""
	}
	in.group.halted = nil
	delete(in.group.slots, in.slot) // whoever asks anew does not wait for the old backoff
}

// find is the worker that is meant, if something can be done about it.
func (s *Set) find(which Which, replaces bool) (*incarnation, error) {
	switch {
	case s.stopping:
		return nil, ErrEnded
	case s.yielded:
		return nil, ErrGivenAway
	}
	var members []*incarnation
	var workers []Worker
	for _, g := range s.groups {
		for _, in := range g.members {
			members, workers = append(members, in), append(workers, in.status())
		}
	}
	i, err := which.find(workers, replaces)
	if err != nil {
		return nil, err
	}
	return members[i], nil
}

// groupOf is the group of that name, or nil.
func (s *Set) groupOf(name string) *group {
	for _, g := range s.groups {
		if g.Name == name && !g.dropped {
			return g
		}
	}
	return nil
}

// noGroup says which groups there are.
func (s *Set) noGroup(name string) error {
	var names []string
	for _, g := range s.groups {
		if !g.dropped {
			names = append(names, g.Name)
		}
	}
	return fmt.Errorf("%w: %q; there is %s", ErrNoGroup, name, strings.Join(names, ", "))
}

func (s *Set) goneAndServed(in *incarnation) (bool, error) {
	served, err := s.slotServed(in.group, in.slot)
	return served && in.state == lifecycle.Exited, err
}

// slotServed reports whether a slot is as it should be, or why it does not become so.
func (s *Set) slotServed(g *group, slot int) (bool, error) {
	if g.halted != nil && g.staleServes(slot) {
		return false, g.halted
	}
	if err := g.stuckAt(slot); err != nil {
		return false, err
	}
	return lifecycle.SlotSettled(g.view(), s.want(g), slot), nil
}
