package workerset

import (
	"context"
	"errors"
	"fmt"

	"golang.org/x/sys/unix"
)

// healthTries is how often a program is asked of which a sibling answers: which of those
// that accept from one socket gets a connection is for them to know.
const healthTries = 20

// Healthy asks every worker of this generation that accepts for its group's path over HTTP,
// on the first of its sockets that accepts connections, for a program over TCP, and returns
// what was wrong with the first that has not answered with a status below 400. One without
// such a socket, or of a group without a path, is not asked. Of programs that share a socket it may happen that one is never
// met; it is not blamed for that. While the set is given away nobody is blamed.
func (s *Set) Healthy(ctx context.Context, paths map[string]string) error {
	type patient struct {
		name, path string
		pid        int
		dial       dial
	}
	var list []patient
	err := s.do(ctx, func() {
		for _, g := range s.groups {
			path := paths[g.Name]
			for _, in := range g.members {
				if socket := s.askable(in); path != "" && socket != "" && in.state.Accepts() && !in.stale {
					list = append(list, patient{in.name(), path, in.pid(), s.dialer(in, socket)})
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
			err = getOnce(ctx, p.dial, p.path)
		}
		if err != nil && !errors.Is(err, errSibling) && s.answers(ctx, p.pid) {
			return fmt.Errorf("worker %s, pid %d: %w", p.name, p.pid, err)
		}
	}
	return nil
}

// askable is the name of the socket on which a worker is asked, or "".
func (s *Set) askable(in *incarnation) string {
	for _, name := range in.as.socketsOf(in.slot) {
		fd := s.cfg.Sockets[name]
		if listens, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err != nil || listens == 0 {
			continue
		}
		if _, err := tcpAddr(fd); err == nil || !in.foreign() {
			return name
		}
	}
	return ""
}

// answers reports whether an answer was to be expected: none is of a worker that drains
// meanwhile, or whose channel is halted for another process.
func (s *Set) answers(ctx context.Context, pid int) (yes bool) {
	_ = s.do(ctx, func() {
		for _, g := range s.groups {
			for _, in := range g.members {
				yes = yes || in.pid() == pid && in.state.Accepts() && !s.yielded
			}
		}
	})
	return yes
}
