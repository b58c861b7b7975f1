package upgrader

import (
	"fmt"
	"net"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/moving"
)

// QueueOf is Queue for a listener that Listen has returned: what package drain wants
// (drain.Successor). For another the error wraps ErrListener.
func (u *Upgrader) QueueOf(ln net.Listener) (give, take int, err error) {
	l, ok := ln.(*listener)
	if !ok {
		return -1, -1, fmt.Errorf("queue of %v: %w", ln.Addr(), ErrListener)
	}
	return u.Queue(l.name)
}

// Queue returns the descriptors of the two ends of a queue, by which connections that
// were accepted from the socket of that name move between processes (package drain):
// the predecessor's, or a new one. They are the Upgrader's, which closes them in Stop,
// and travel to the successor with what is queued there; the supervisor gets copies, as of a
// KeptFile. Call it before Ready, like
// Open. Where connections can't move, the error wraps errors.ErrUnsupported.
func (u *Upgrader) Queue(name string) (give, take int, err error) {
	ends, err := u.KeptPair([2]string{"handover.give." + name, "handover.take." + name}, func() (ends [2]int, err error) {
		ends[0], ends[1], err = moving.Pair()
		return ends, err
	})
	if err != nil {
		return -1, -1, fmt.Errorf("queue of socket %q: %w", name, err)
	}
	return ends[0], ends[1], nil
}

// KeptPair is KeptFile for two files that are of use together only, such as the ends of a
// socketpair(2): the predecessor's, those of a process that has died, or new ones, of which
// open returns the descriptors. They stay the Upgrader's.
func (u *Upgrader) KeptPair(names [2]string, open func() (ends [2]int, err error)) (fds [2]int, err error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var ends [2]*Socket
	for i, name := range names {
		if err := listen.CheckName(name); err != nil {
			return fds, fmt.Errorf("file %w", err)
		}
		spec := listen.Spec{Name: name, Network: listen.KindFile}
		if err := u.vacant(spec); err != nil {
			return fds, err
		}
		if ends[i] = u.inherited[spec]; ends[i] == nil {
			if fd := u.passed.File(spec.StoreName()); fd >= 0 {
				ends[i] = &Socket{spec: spec, fd: fd, stored: spec.StoreName()}
			}
		}
	}
	if ends[0] == nil || ends[1] == nil {
		for _, s := range ends { // one alone is of no use
			if s != nil {
				s.Close()
				delete(u.inherited, s.spec)
			}
		}
		if fds, err = open(); err != nil {
			return fds, err
		}
		for i, fd := range fds {
			ends[i] = &Socket{spec: listen.Spec{Name: names[i], Network: listen.KindFile}, fd: fd}
		}
	}
	for i, s := range ends {
		s.kept = true
		u.keep(s, s.spec)
		fds[i] = s.Fd()
	}
	return fds, nil
}
