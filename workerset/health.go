package workerset

import (
	"context"
	"errors"
	"fmt"
)

// healthTries is how often a program is asked of which a sibling answers: which of those
// that accept from one socket gets a connection is for them to know.
const healthTries = 20

// Healthy asks every worker of this generation that accepts, and has sockets, for a path
// over HTTP, on its first socket, and returns what was wrong with the first that has not
// answered with a status below 400. Of programs that share a socket it may happen that one
// is never met; it is not blamed for that.
func (s *Set) Healthy(ctx context.Context, path string) error {
	type patient struct {
		name string
		pid  int
		dial dial
	}
	var list []patient
	err := s.do(ctx, func() {
		for _, g := range s.groups {
			for _, in := range g.members {
				if in.state.Accepts() && !in.stale && len(in.as.socketsOf(in.slot)) > 0 {
					list = append(list, patient{in.name(), in.pid(), s.dialer(in)})
				}
			}
		}
	})
	if err != nil {
		return err
	}
	for _, p := range list {
		err := errSibling
		for n := 0; n < healthTries && errors.Is(err, errSibling); n++ {
			err = getOnce(ctx, p.dial, path)
		}
		if err != nil && !errors.Is(err, errSibling) && s.accepts(ctx, p.pid) {
			return fmt.Errorf("worker %s, pid %d: %w", p.name, p.pid, err)
		}
	}
	return nil
}

// accepts reports whether a worker still does: of one that drains meanwhile no answer is
// expected.
func (s *Set) accepts(ctx context.Context, pid int) (yes bool) {
	_ = s.do(ctx, func() {
		for _, g := range s.groups {
			for _, in := range g.members {
				yes = yes || in.pid() == pid && in.state.Accepts()
			}
		}
	})
	return yes
}
