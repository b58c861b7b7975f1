package drain

import (
	"bytes"
	"errors"
	"net"
	"time"

	"github.com/handover-go/handover/internal/moving"
)

// This file is how a connection that another process gave away is served here.
//
// To an http.Server it would be a new connection, with the time for a new one. So it
// waits outside until something arrives, for as long as it might have waited where it
// came from; only then is it the server's.

// Of several processes the one that is quickest would get nearly all connections. So
// each waits before it takes some, for each that it has, but not for long, and a little
// in any case, or a few connections would be gone before another one is awake; and the
// more it has, the more it takes at a time.
const (
	minShareTime = 100 * time.Microsecond
	shareTime    = 10 * time.Microsecond
	maxShareTime = 500 * time.Microsecond
	shareBatch   = 64 // one more for so many that it has
)

// share waits for this process's turn to take connections, and returns how many.
func (d *Drainer) share() int {
	n := d.size()
	time.Sleep(min(maxShareTime, minShareTime+shareTime*time.Duration(n)))
	return 1 + n/shareBatch
}

// A turn is how many connections may still be taken before there is another wait, and
// before there is another look for room, which takes five system calls.
type turn struct {
	take, room int
	scarce     bool // there was none
}

// roomBatch is small beside the reserve.
const roomBatch = 8

// scarceTime is how long nothing is taken when descriptors are running out.
const scarceTime = 100 * time.Millisecond

// receive takes connections, until the drain has ended.
func (d *Drainer) receive() {
	var t turn
	var other stranger
	var y yield
	for d.mayReceive(&t) {
		waited, err := d.cfg.Queue.Await()
		if err == nil && !t.hasRoom(waited) {
			if !d.scarce.Swap(true) { // once
				d.log.Warn("descriptors are running out: connections of other processes are taken only as there is room, raise the limit (RLIMIT_NOFILE)")
			}
			continue
		}
		if err == nil && !d.takesNext(&y) {
			continue
		}
		if err == nil {
			err = d.takeNext()
		}
		switch {
		case err == nil:
		case timedOut(err): // the role has changed, or somebody else has taken it
		case errors.Is(err, moving.ErrMessage):
			d.log.Warn("a connection from another process was not understood", "error", err)
		case errors.Is(err, moving.ErrKind):
			d.leaveAlone(&other)
		default:
			d.log.Error("no connections can be taken any more", "error", err)
			return
		}
	}
}

// takeNext takes the next connection, unless the role has changed: what this process itself has
// given away is for others.
func (d *Drainer) takeNext() error {
	d.taking.Lock()
	defer d.taking.Unlock()
	if !Role(d.role.Load()).takes() {
		return nil
	}
	m, fd, err := d.cfg.Queue.TryReceive(d.kind)
	if err == nil {
		d.receiveOne(m, fd)
	}
	return err
}

// A stranger is a connection of another kind of server, which the same socket has now, or
// had before.
type stranger struct {
	id    uint64
	since time.Time // it has been the next one
}

// strangeTime is how often it is looked whether it is still there.
const strangeTime = 10 * time.Millisecond

// leaveAlone waits a little, for somebody else to take the next connection: who has given it
// away, if nobody serves such a one. If nobody takes it, it is put behind the others.
func (d *Drainer) leaveAlone(s *stranger) {
	time.Sleep(strangeTime)
	switch id := d.cfg.Queue.Next(); {
	case id == 0 || id != s.id:
		s.id, s.since = id, time.Now()
	case time.Since(s.since) >= stallTime:
		*s = stranger{}
		if err := d.cfg.Queue.Rotate(); err != nil && !timedOut(err) {
			d.log.Warn("a connection from another process was not understood", "error", err)
		}
	}
}

// hasRoom tells whether there is a descriptor for a connection. What was known before a
// wait is not known any more.
func (t *turn) hasRoom(waited bool) bool {
	if t.room--; waited || t.room < 0 {
		t.room = roomBatch - 1
		t.scarce = !roomForOne()
	}
	return !t.scarce
}

// mayReceive waits until a connection may be taken. It returns false at the end.
func (d *Drainer) mayReceive(t *turn) bool {
	for {
		var scarce <-chan time.Time
		if role := Role(d.role.Load()); role.takes() {
			if !t.scarce {
				if t.take--; role == Share && t.take < 0 {
					t.take = d.share() - 1
				}
				return !isClosed(d.settled)
			}
			t.scarce, t.room = false, 0
			scarce = time.After(scarceTime)
		}
		select {
		case <-d.receiver:
		case <-scarce:
		case <-d.settled:
			return false
		}
	}
}

// receiveRest takes what is queued when nothing is left to do: nobody else may come who
// would.
func (d *Drainer) receiveRest() {
	if !d.moves() || !Role(d.role.Load()).takes() {
		return
	}
	d.receiveQueued()
}

// takeBack takes what nobody else does. It is not given away again for a while, so that
// what clients have asked meanwhile is answered here.
func (d *Drainer) takeBack() {
	d.holdOn()
	d.log.Warn("no process takes connections: they are served here for now")
	d.receiveQueued()
	wake(d.giver) // to try again after that time
}

// receiveQueued takes what is in the queue now.
func (d *Drainer) receiveQueued() {
	d.taking.Lock()
	defer d.taking.Unlock()
	for roomForOne() {
		m, fd, err := d.cfg.Queue.TryReceive(d.kind)
		if err == nil {
			d.receiveOne(m, fd)
		} else if !errors.Is(err, moving.ErrMessage) {
			return
		}
	}
}

// receiveOne serves a connection.
func (d *Drainer) receiveOne(m moving.Message, fd int) {
	nc, err := adopt(fd, d.ln.Addr(), d.ln.family)
	// Closed by the client on the way. A stream may still have something to be read.
	if gone := errors.Is(err, errGone); gone && d.streams == nil {
		nc.Close()
		return
	} else if err != nil && !gone {
		d.log.Warn("a connection from another process can't be served", "error", err)
		return
	}
	c, wrapped := wrap(d, nc)
	c.held.bytes, c.post = m.Held, m.Post
	if m.Idle > 0 {
		c.deadline = time.Now().Add(m.Idle)
	}
	d.mu.Lock()
	over := d.over
	if over {
		d.count(nc, cut)
	} else {
		d.conns[c] = struct{}{}
		d.pause()
		if d.movedIn++; d.served+d.movedIn == 1 {
			close(d.accepted)
		}
	}
	d.mu.Unlock()
	if over {
		nc.Close()
		return
	}
	if d.streams != nil {
		d.streams.start(c, append([]byte{}, m.State...))
		return
	}
	_ = nc.SetReadDeadline(c.deadline)
	d.parked.Go(func() {
		if c.park() {
			d.toServer(c, wrapped)
		}
	})
}

// enough is how many bytes net/http waits for before a connection is not idle any more.
const enough = 4

// park waits until enough has arrived. It returns false if the connection is closed,
// moved on, or has been idle for too long.
func (c *conn) park() bool {
	for b := make([]byte, enough); ; {
		c.mu.Lock()
		if len(c.held.bytes) >= enough {
			c.mu.Unlock()
			return true
		}
		if c.d.giving() && c.give() {
			c.mu.Unlock()
			c.Close()
			return false
		}
		c.reading = true
		room := enough - len(c.held.bytes)
		c.mu.Unlock()
		n, err := c.Conn.Read(b[:room])
		c.mu.Lock()
		c.reading = false
		poked := c.unpoke()
		c.held.bytes = append(c.held.bytes, b[:n]...)
		gone := n > 0 && !c.arrived() || n == 0 && !(poked && timedOut(err) && !c.expired())
		c.mu.Unlock()
		if gone {
			c.end(finished)
			return false
		}
	}
}

// toServer gives the connection to the server, which sees a new one, and so does not
// forgive what it would after a POST: line ends among the first bytes.
func (d *Drainer) toServer(c *conn, wrapped net.Conn) {
	c.mu.Lock()
	c.pre, c.held.bytes = c.held.bytes, nil
	if c.post {
		c.pre = c.pre[enough-len(bytes.TrimLeft(c.pre[:enough], "\r\n")):]
		c.post = false // not again in the next process
	}
	c.deadline = time.Time{}
	_ = c.Conn.SetReadDeadline(time.Time{})
	c.mu.Unlock()
	inner, served := d.deliveries()
	select {
	case inner.conns <- wrapped:
	case <-served:
		c.end(finished)
	}
}

func isClosed(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
