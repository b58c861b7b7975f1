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
// and travel to the successor with what is queued there. Call it before Ready, like
// Open. Where connections can't move, the error wraps errors.ErrUnsupported.
func (u *Upgrader) Queue(name string) (give, take int, err error) {
	specs := [2]listen.Spec{
		{Name: "handover.give." + name, Network: listen.KindFile},
		{Name: "handover.take." + name, Network: listen.KindFile},
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	var ends [2]*Socket
	for i, spec := range specs {
		if err := listen.CheckName(spec.Name); err != nil {
			return -1, -1, fmt.Errorf("queue of socket %q: %w", name, err)
		}
		if err := u.vacant(spec); err != nil {
			return -1, -1, err
		}
		ends[i] = u.inherited[spec]
	}
	if ends[0] == nil || ends[1] == nil {
		give, take, err := moving.Pair()
		if err != nil {
			return -1, -1, fmt.Errorf("queue of socket %q: %w", name, err)
		}
		ends = [2]*Socket{{spec: specs[0], fd: give}, {spec: specs[1], fd: take}}
	}
	for i, s := range ends {
		u.keep(s, specs[i])
	}
	return ends[0].Fd(), ends[1].Fd(), nil
}
