package drain

import (
	"math/rand/v2"
	"net"
	"time"
)

// This file is the register of a Drainer's connections: all that its mutex guards
// besides the state of Serve.

// maxNamed is how many of the connections that were cut are named.
const maxNamed = 10

// enter asks for permission to call accept(2). It waits while the Drainer is held, or
// has as many connections as it may, and says no once a drain has begun.
func (d *Drainer) enter() bool {
	for {
		d.mu.Lock()
		gate := d.gate
		begun := d.begun.Load() && !d.emptying
		crowded := d.crowded()
		if !begun && gate == nil && !crowded {
			d.accepting++
			d.unpause()
			d.roomier()
		}
		d.mu.Unlock()
		if begun {
			return false
		}
		if gate == nil && !crowded {
			return true
		}
		if gate == nil {
			d.sayCrowded()
		}
		select {
		case <-gate:
		case <-d.fewer:
		case <-d.draining:
		case <-d.ln.closed:
			return true // the call will fail as it should
		}
	}
}

// leave ends what enter began. nc is what was accepted, if anything was. The
// connection that is returned is registered; it is nil if none may be served.
func (d *Drainer) leave(nc net.Conn) net.Conn {
	d.mu.Lock()
	d.accepting--
	d.hush()
	over := d.over
	var wrapped net.Conn
	if nc != nil && !over {
		var c *conn
		c, wrapped = wrap(d, nc)
		d.conns[c] = struct{}{}
		if d.served++; d.served+d.movedIn == 1 {
			close(d.accepted)
		}
	}
	if nc != nil && over {
		d.count(nc, cut)
	}
	d.roomier()
	d.mu.Unlock()
	d.poke()
	if nc != nil && over {
		nc.Close()
	}
	return wrapped
}

// hush closes quiet when nobody calls accept(2), nor will. The caller holds mu.
func (d *Drainer) hush() {
	if d.begun.Load() && !d.emptying && d.accepting == 0 && !isClosed(d.quiet) {
		close(d.quiet)
	}
}

// forget takes a connection that was closed off the register.
func (d *Drainer) forget(c *conn, f fate) {
	d.mu.Lock()
	delete(d.conns, c)
	d.roomier()
	if f == moved {
		d.movedOut++
	}
	if d.begun.Load() {
		d.count(c, f)
	}
	d.mu.Unlock()
	d.poke()
}

// count writes a connection's fate into the report. The caller holds mu.
func (d *Drainer) count(c net.Conn, f fate) {
	switch f {
	case finished:
		d.report.Finished++
	case closedIdle:
		d.report.ClosedIdle++
	case moved:
		d.report.Moved++
	case cut:
		d.report.Cut++
		if len(d.report.CutConns) < maxNamed {
			d.report.CutConns = append(d.report.CutConns, remote(c))
		}
	}
}

// poke wakes await.
func (d *Drainer) poke() {
	if !d.begun.Load() {
		return
	}
	select {
	case d.changed <- struct{}{}:
	default:
	}
}

// empty tells that there is no connection, and that none is being accepted.
func (d *Drainer) empty() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.accepting == 0 && len(d.conns) == 0
}

// size counts the connections that are open now.
func (d *Drainer) size() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.conns)
}

// open returns the connections that are open now.
func (d *Drainer) open() []*conn {
	d.mu.Lock()
	defer d.mu.Unlock()
	open := make([]*conn, 0, len(d.conns))
	for c := range d.conns {
		open = append(open, c)
	}
	return open
}

// apart is how far from each other, on average, idle connections are closed, as long
// as that takes no more than a fifth of the lame-duck time: all their clients will
// connect anew.
const apart = time.Millisecond

// spread is the time in which so many connections are closed.
func spread(lameDuck time.Duration, conns int) time.Duration {
	return min(lameDuck/5, time.Duration(conns-1)*apart)
}

// sayGoodbye has the sessions of HTTP/2 do so, those that there are and those to come.
func (d *Drainer) sayGoodbye() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.leaving = true
	var sessions []*session
	for c := range d.conns {
		if s := c.session.Load(); s != nil {
			sessions = append(sessions, s)
		}
	}
	over := spread(d.cfg.LameDuck, len(sessions))
	for _, s := range sessions {
		d.startLeave(s, rand.N(over+1))
	}
}

// opened notes that there is another session.
func (d *Drainer) opened(s *session) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.leaving {
		d.startLeave(s, 0)
	}
}

// startLeave has a session say goodbye after a while. The caller holds mu.
func (d *Drainer) startLeave(s *session, delay time.Duration) {
	if s.left || d.over {
		return
	}
	s.left = true
	s.leaving.Store(true)
	d.leaves.Go(func() { s.leave(delay, d.cfg.LameDuck) })
}

// closeIdle closes connections that have been idle for the lame-duck time, and
// returns when the next ones can be due.
func (d *Drainer) closeIdle(lameDuck time.Duration) time.Duration {
	now := time.Since(d.since)
	next := lameDuck
	conns := d.open()
	over := spread(lameDuck, len(conns))
	for _, c := range conns {
		if !c.isIdle() || d.stays(c) || lameDuck > 0 && c.leaves() {
			continue
		}
		if c.late == 0 && over > 0 {
			c.late = rand.N(over)
		}
		if left := c.idleSince() + lameDuck + c.late - now; left > 0 {
			next = min(next, left)
		} else if !readable(c.Conn) && c.take() {
			c.farewell()
			c.end(closedIdle)
		}
	}
	return next
}

// cut closes all that is left.
func (d *Drainer) cut() {
	d.mu.Lock()
	d.over = true
	d.mu.Unlock()
	d.closeIdle(0)
	for i, c := range d.open() {
		if i < maxNamed {
			d.log.Warn("connection cut", "remote", remote(c), "state", c.state())
		}
		c.end(cut)
	}
	d.awaitOwners()
	if r := d.Report(); r.Cut > 0 {
		d.log.Warn("connections were cut", "count", r.Cut, "after", r.Took)
	}
}

// awaitOwners waits for those that were about to be closed by their owners, and count as that, so
// that the report is final.
func (d *Drainer) awaitOwners() {
	for late := time.After(grace); d.size() > 0; {
		select {
		case <-d.changed:
		case <-late:
			return
		}
	}
}

// remote names the peer. Some listeners' connections have none. One that wraps the socket may
// not know it yet, and wait until the client says it (PROXY protocol).
func remote(nc net.Conn) string {
	known := bare(nc)
	if c, ok := nc.(*conn); ok {
		known = bare(c.Conn) || c.heard.Load() || c.ended.Load()
	}
	if !known {
		return ""
	}
	if a := nc.RemoteAddr(); a != nil {
		return a.String()
	}
	return ""
}
