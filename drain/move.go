package drain

import (
	"errors"
	"net"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/moving"
)

// This file is how a connection that waits for a request leaves for another process.
//
// The server is inside Read then. A read deadline in the past, the poke, ends the
// kernel's read; Read sends the descriptor and tells the server that the connection is
// gone. If it can't be sent, Read goes on as if nothing had been, and the server has not
// noticed. A poke that comes too late, because bytes have arrived, is undone before the
// server gets them, so that no handler ever meets it.

// Role is what a Drainer does with connections that move between processes. See
// [Drainer.Move].
type Role int32

const (
	Stay  Role = iota // none move: a drain closes them after the lame-duck time
	Take              // serves those that others give away, also during a drain, and else is Stay
	Share             // the same, among others who do: the fewer connections it has, the sooner
	Keep              // a drain keeps them open: somebody will take them, but does not yet
	Give              // a drain gives them away as soon as they wait for a request, or their handlers move them
)

func (r Role) takes() bool { return r == Take || r == Share }

var past = time.Unix(1, 0)

// bare tells whether a connection, or the listener that it came from, is a socket and
// nothing else. What wraps one may know more of the client than the socket says, and may
// have read from it.
func bare(v any) bool {
	switch v.(type) {
	case *net.TCPConn, *net.UnixConn, *net.TCPListener, *net.UnixListener:
		return true
	}
	return false
}

// readMovable is Read of a connection that may move.
func (c *conn) readMovable(p []byte) (int, error) {
	for {
		if n, err, done := c.beforeRead(p); done {
			return n, err
		}
		n, err := c.Conn.Read(p)
		if n, err, again := c.afterRead(p, n, err); !again {
			return n, err
		}
	}
}

func (c *conn) beforeRead(p []byte) (n int, err error, done bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.phase.Load() == taken {
		return 0, errTaken, true
	}
	c.held.asked(len(p))
	if len(c.pre) > 0 && len(p) > 0 {
		n = copy(p, c.pre)
		if c.pre = c.pre[n:]; len(c.pre) == 0 {
			c.pre = nil
		}
		n, err = c.took(p[:n])
		return n, err, true
	}
	if c.held.known && c.d.giving() && c.give() {
		return 0, errTaken, true
	}
	c.reading = true
	return 0, nil, false
}

func (c *conn) afterRead(p []byte, n int, err error) (_ int, _ error, again bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.reading = false
	poked := c.unpoke()
	if n > 0 {
		n, err := c.took(p[:n])
		return n, err, false
	}
	if poked && timedOut(err) && !c.expired() {
		if c.held.known && c.d.giving() && c.give() {
			return 0, errTaken, false
		}
		return 0, nil, true
	}
	return n, err, false
}

// took notes that p was read for the server, which may be too late. The caller holds mu.
func (c *conn) took(p []byte) (int, error) {
	c.held.got(p)
	if !c.arrived() {
		return 0, errTaken
	}
	c.sniff(p)
	return len(p), nil
}

// expired tells whether the server's own deadline has passed.
func (c *conn) expired() bool { return !c.deadline.IsZero() && !time.Now().Before(c.deadline) }

// SetReadDeadline is the server's.
func (c *conn) SetReadDeadline(t time.Time) error {
	if !c.movable {
		return c.Conn.SetReadDeadline(t)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.held.deadlineSet()
	c.deadline = t
	if c.poked != nil {
		return nil // the read that was poked sets it
	}
	return c.Conn.SetReadDeadline(t)
}

// SetDeadline is the server's.
func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

// waits tells whether the server waits for a request on the connection, and nothing has
// poked it.
func (c *conn) waits() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.waitsLocked()
}

func (c *conn) waitsLocked() bool {
	return c.reading && c.held.known && c.poked == nil && c.phase.Load() < hijacked
}

// poke ends the read of a connection that waits for a request. The channel is closed
// when that has happened; it is nil if there was nothing to poke.
func (c *conn) poke() <-chan struct{} {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.waitsLocked() {
		return nil
	}
	c.poked = make(chan struct{})
	_ = c.Conn.SetReadDeadline(past)
	return c.poked
}

// unpoke undoes a poke when the read has ended. The caller holds mu.
func (c *conn) unpoke() bool {
	if c.poked == nil {
		return false
	}
	_ = c.Conn.SetReadDeadline(c.deadline)
	close(c.poked)
	c.poked = nil
	return true
}

// give sends the connection away. If it returns false, everything is as before. The
// caller holds mu.
func (c *conn) give() bool {
	p := c.phase.Load()
	if p >= hijacked || !c.phase.CompareAndSwap(p, taken) {
		return false
	}
	m := moving.Message{Post: c.post, Held: c.held.bytes}
	if !c.deadline.IsZero() {
		m.Idle = max(time.Until(c.deadline), 1)
	}
	raw, err := c.Conn.(syscall.Conn).SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = c.d.cfg.Queue.Send(int(fd), m) })
		err = errors.Join(cerr, err)
	}
	if err != nil {
		c.phase.Store(p)
		c.d.notGiven(err)
		return false
	}
	c.given = true
	return true
}

// Move says what is to be done with connections that move. The role is Stay at first;
// it may change at any time, also during the drain. Without Config.Queue, or with a
// server that is neither an *http.Server nor Streams, it does nothing.
func (d *Drainer) Move(role Role) {
	d.taking.Lock() // who does not take any more has nothing in its hands then
	defer d.taking.Unlock()
	d.mu.Lock()
	defer d.mu.Unlock()
	if !d.moves() || isClosed(d.settled) {
		return
	}
	d.role.Store(int32(role))
	if role.takes() {
		d.cfg.Queue.SetDeadline(time.Time{})
	} else {
		d.cfg.Queue.SetDeadline(past)
	}
	wake(d.giver)
	wake(d.receiver)
}

// findQueue takes the successor's queue. Without one connections just do not move.
func (d *Drainer) findQueue(ln net.Listener) {
	if d.cfg.Successor == nil || d.cfg.Queue != nil || d.cfg.TLS != nil || d.cfg.Wrap != nil {
		return
	}
	give, take, err := d.cfg.Successor.QueueOf(ln)
	if err == nil {
		d.cfg.Queue, err = moving.Open(give, take)
	}
	if err != nil {
		d.log.Debug("idle connections will be closed in a drain, they can't move", "error", err)
		return
	}
	d.bare, d.own = true, true
}

// followSuccessor moves connections as the successor says, until the drain has ended.
func (d *Drainer) followSuccessor() {
	select {
	case <-d.cfg.Successor.Decided():
		d.mayTake()
	case <-d.settled:
		return
	}
	select {
	case <-d.cfg.Successor.Replaced():
		d.Move(Give)
	case <-d.settled:
	}
}

func (d *Drainer) mayTake() {
	if !isClosed(d.cfg.Successor.Replaced()) {
		d.Move(Take)
	}
}

// moves tells whether connections can move at all.
func (d *Drainer) moves() bool { return d.cfg.Queue != nil && d.bare }

// holdOn has nothing given away for a while.
func (d *Drainer) holdOn() {
	until := time.Now().Add(stallTime)
	d.pausedUntil.Store(&until)
}

// paused is for how long nothing is given away, if that is more than 0.
func (d *Drainer) paused() time.Duration {
	if until := d.pausedUntil.Load(); until != nil {
		return time.Until(*until)
	}
	return 0
}

// giving tells whether connections are to be given away now.
func (d *Drainer) giving() bool {
	return d.begun.Load() && Role(d.role.Load()) == Give && d.paused() <= 0
}

// stays tells whether a connection, during a drain, is kept open to be moved, and not
// closed after the lame-duck time. If nobody takes it, that time begins with what is
// left of the timeout.
func (d *Drainer) stays(c *conn) bool {
	if role := Role(d.role.Load()); !c.movable || role != Keep && role != Give || d.broken.Load() {
		return false
	}
	c.mu.Lock()
	never := c.held.never
	c.mu.Unlock()
	return !never && time.Since(d.since) < max(d.timeout/2, d.timeout-d.cfg.LameDuck)
}

// notGiven notes that a connection could not be sent.
func (d *Drainer) notGiven(err error) {
	if errors.Is(err, moving.ErrFull) {
		d.full.Store(true)
		wake(d.giver)
		return
	}
	if !d.broken.Swap(true) {
		d.log.Error("connections can't be moved, they are closed when they have been idle", "error", err)
		d.poke()
	}
}

// roomTime is how long a connection may wait in the queue until those who should take
// it are given up for the moment, and stallTime for how long. pause is the time between
// two tries when the queue has room and something else has not.
const (
	roomTime  = 50 * time.Millisecond
	stallTime = time.Second
	pause     = time.Millisecond
)

// giveAll gives away what waits for a request, until the drain has ended. What begins
// to wait later goes by itself, unless the queue is full.
func (d *Drainer) giveAll() {
	for {
		for _, c := range d.open() {
			d.giveOne(c)
		}
		var resume <-chan time.Time
		if left := d.paused(); left > 0 {
			resume = time.After(left)
		}
		select {
		case <-d.giver:
		case <-resume:
		case <-d.settled:
			return
		}
	}
}

// giveOne gives a connection away if it waits for a request, as soon as the queue has
// room for it.
func (d *Drainer) giveOne(c *conn) {
	for again := false; d.giving() && !d.broken.Load() && !isClosed(d.settled) && c.waits(); again = true {
		// Room first: a poke for nothing is dear.
		room, waited := d.cfg.Queue.AwaitRoom(time.Now().Add(roomTime))
		if !room {
			d.takeBack()
			continue
		}
		if again && !waited {
			time.Sleep(pause)
		}
		d.full.Store(false)
		poked := c.poke()
		if poked == nil {
			return
		}
		<-poked
		if !d.full.Load() {
			return
		}
	}
}

// given waits until what was given away has been taken, and reports whether it was; if
// not, it is here again.
func (d *Drainer) given() bool {
	for end := time.Now().Add(roomTime); d.giving() && d.cfg.Queue.Pending(); {
		if time.Now().After(end) {
			d.takeBack()
			return false
		}
		select {
		case <-time.After(pause / 10):
		case <-d.cutting:
			return true
		}
	}
	// It may be neither in the queue nor here: somebody has just taken it back.
	d.taking.Lock()
	defer d.taking.Unlock()
	return d.empty()
}

// wake wakes whoever waits for ch, which has room for one.
func wake(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}
