package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

// This file sends what Node's way of passing descriptors asks for: one at a time, the
// next when it is known that the last has arrived.

const (
	// maxHandouts is how many may wait to be sent to a program. One that asks for more and
	// takes none has lost its way.
	maxHandouts = 256
	// maxNacks is how often a descriptor is sent again that did not arrive: as often as
	// Node does.
	maxNacks = 3
	// handAgain is when to try again what did not fit into the channel.
	handAgain = 100 * time.Millisecond
)

// handout is a message to a program that has to keep its place among those with
// descriptors. It travels to the next parent.
type handout struct {
	Line json.RawMessage `json:"line"`
	// Socket names that of which a descriptor goes with it, in a NODE_HANDLE; "" is none.
	Socket string `json:"socket,omitempty"`
	Offer  bool   `json:"offer,omitempty"` // of --offer
}

// handouts are what a program has to be sent. The zero value is ready.
type handouts struct {
	queue  []handout
	flying bool // the first of the queue was sent, and is not acknowledged
	nacks  int  // of that one
	acks   int  // of its own descriptors, owed
	parcel int  // of a message whose file was sent, and is not acknowledged
	retry  time.Time
}

// handOut puts a message into in's queue; false when that is full.
func (s *Set) handOut(in *incarnation, line any, socket string, offer bool) bool {
	b, err := json.Marshal(line)
	if err != nil || len(in.handouts.queue) >= maxHandouts {
		return false
	}
	in.handouts.queue = append(in.handouts.queue, handout{Line: b, Socket: socket, Offer: offer})
	s.hand(in)
	return true
}

// hand sends what may be sent.
func (s *Set) hand(in *incarnation) {
	m := &in.handouts
	m.retry = time.Time{}
	if in.conn == nil || in.deaf {
		return
	}
	later := func(err error) bool {
		if errors.Is(err, wire.ErrFull) || errors.Is(err, wire.ErrHalted) || errors.Is(err, syscall.ETOOMANYREFS) {
			m.retry = time.Now().Add(handAgain)
			return true
		}
		return false
	}
	for ; m.acks > 0; m.acks-- { // first: it may wait for it with what would make room
		if later(in.out.Put(wire.Order{Cmd: wire.CmdNodeHandleAck})) {
			return
		}
	}
	for len(m.queue) > 0 && !m.flying && m.parcel == 0 {
		p := m.queue[0]
		err := s.sendHandout(in, p)
		switch {
		case later(err):
			return
		case err != nil:
			s.logOf(in).Warn("a program can't be sent a socket", "socket", p.Socket, "error", err)
		case p.Socket != "":
			m.flying = true
			return
		}
		m.queue = m.queue[1:]
	}
}

// sendHandout sends one, with a descriptor if it is to have one.
func (s *Set) sendHandout(in *incarnation, p handout) error {
	if p.Socket == "" {
		return in.out.Put(p.Line)
	}
	fd, ok := s.cfg.Sockets[p.Socket]
	if !ok {
		return errors.New("there is no such socket any more")
	}
	dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return fmt.Errorf("socket %q: %w", p.Socket, os.NewSyscallError("fcntl", err))
	}
	f := os.NewFile(uintptr(dup), p.Socket)
	defer f.Close()
	return in.out.Put(p.Line, f)
}

// arrived: the descriptor on its way is there. The next one may follow.
func (s *Set) arrived(in *incarnation) {
	m := &in.handouts
	if m.parcel != 0 {
		s.parcelArrived(in, true)
		s.hand(in)
		return
	}
	if !m.flying {
		return
	}
	p := m.queue[0]
	m.queue, m.flying, m.nacks = m.queue[1:], false, 0
	s.hand(in)
	if p.Offer && !in.offering() {
		in.offered = true
		s.couldServe(in)
	}
}

// notArrived: it is to be sent again.
func (s *Set) notArrived(in *incarnation) {
	m := &in.handouts
	if m.parcel != 0 {
		s.parcelArrived(in, false)
		s.hand(in)
		return
	}
	if !m.flying {
		return
	}
	if m.nacks++; m.nacks > maxNacks {
		s.logOf(in).Warn("a socket does not arrive at a program", "socket", m.queue[0].Socket)
		m.queue, m.nacks = m.queue[1:], 0
	}
	m.flying = false
	s.hand(in)
}

// offering reports whether sockets are on their way that it is offered.
func (in *incarnation) offering() bool {
	for _, p := range in.handouts.queue {
		if p.Offer {
			return true
		}
	}
	return false
}
