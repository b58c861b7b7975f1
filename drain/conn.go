package drain

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"
)

// What an http.Server's connection is doing. One of another server is fresh until that has
// looked at it, and busy then.
const (
	fresh    uint32 = iota // accepted, and nothing was read
	idle                   // waits for its next request
	busy                   // something of a request was read, or it is being answered
	hijacked               // belongs to a handler
	taken                  // moved, or about to be closed by the drain: what is read now is not served
)

// fate is what becomes of a connection.
type fate int

const (
	finished fate = iota // somebody else closed it
	closedIdle
	moved
	cut
)

// errTaken is what the server gets from a connection that is not its any more. To
// net/http it is an error of the network, which it does not answer.
var errTaken = &net.OpError{Op: "read", Err: net.ErrClosed}

// conn is a connection that its Drainer knows. It embeds the interface, so that
// nothing of the real connection's type goes past it.
type conn struct {
	net.Conn
	d       *Drainer
	born    time.Time
	movable bool // may be given away when it waits for a request
	phase   atomic.Uint32
	h2      atomic.Bool  // speaks HTTP/2
	since   atomic.Int64 // of phase idle: nanoseconds after the drain's beginning, or 0
	ended   atomic.Bool
	heard   atomic.Bool            // something was read
	late    time.Duration          // beyond the lame-duck time; the drain's
	stream  atomic.Pointer[Stream] // of Streams, once it is served

	sniffed int                     // bytes of HTTP/2's preface that were read, or -1; the reader's
	session atomic.Pointer[session] // of HTTP/2
	base    context.Context         // the server's of the connection, under TLS
	secure  atomic.Pointer[tls.Conn]
	parting atomic.Bool // what is written now is the drain's

	// Of one that is movable: see move.go.
	mu       sync.Mutex
	held     held
	pre      []byte        // came with it, and the server has not read it
	post     bool          // its last request was a POST
	deadline time.Time     // of the server's reads
	reading  bool          // in a read
	poked    chan struct{} // closed when the read that was poked has ended
	given    bool          // another process has it
}

// Some connections can do more. net/http asks for CloseWrite, to let a client read
// the answer to a request that it is still sending, and for ReadFrom, which is
// sendfile(2) and splice(2).
type (
	halfConn struct {
		conn
		half interface{ CloseWrite() error }
	}
	fileConn struct {
		halfConn
		io.ReaderFrom
	}
)

// CloseWrite shuts the writing side down.
func (c *halfConn) CloseWrite() error {
	if c.phase.Load() == taken {
		return nil
	}
	return c.half.CloseWrite()
}

// wrap makes the connection that the server gets.
func wrap(d *Drainer, nc net.Conn) (*conn, net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		c := &conn{Conn: nc, d: d, born: time.Now()}
		return c.init(), c
	}
	from, ok := nc.(io.ReaderFrom)
	if !ok {
		c := &halfConn{conn: conn{Conn: nc, d: d, born: time.Now()}, half: half}
		return c.conn.init(), c
	}
	c := &fileConn{halfConn: halfConn{conn: conn{Conn: nc, d: d, born: time.Now()}, half: half}, ReaderFrom: from}
	return c.conn.init(), c
}

func (c *conn) init() *conn {
	c.movable = c.d.bare && bare(c.Conn)
	c.held.known = c.movable
	if c.d.cfg.TLS != nil {
		c.sniffed = -1
	}
	return c
}

// tracked finds the conn in what a hook of the server's was given, which may be
// wrapped once more (HTTP/2 does). It is nil if there is none.
func tracked(nc net.Conn) (c *conn, direct bool) {
	for direct = true; ; direct = false {
		switch c := nc.(type) {
		case *fileConn:
			return &c.conn, direct
		case *halfConn:
			return &c.conn, direct
		case *conn:
			return c, direct
		case *secured:
			return c.s.c, false
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil, false
		}
	}
}

// NetConn returns the connection that was accepted. What is done to it is not
// seen by the drain.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Read(p []byte) (int, error) {
	c.looked()
	if s := c.plain(); s != nil {
		return s.Read(p)
	}
	if c.movable {
		return c.readMovable(p)
	}
	n, err := c.Conn.Read(p)
	if n > 0 && !c.heard.Load() {
		c.heard.Store(true)
	}
	if n > 0 && c.d.http {
		if !c.arrived() {
			return 0, errTaken
		}
		c.sniff(p[:n])
	}
	return n, err
}

// Write goes nowhere when the connection is not the server's any more.
func (c *conn) Write(p []byte) (int, error) {
	c.looked()
	if c.phase.Load() == taken && !c.parting.Load() {
		return len(p), nil
	}
	if s := c.plain(); s != nil {
		return s.Write(p)
	}
	return c.Conn.Write(p)
}

// plain is the session of HTTP/2 in plaintext, if it is one.
func (c *conn) plain() *session {
	if c.d.cfg.TLS != nil {
		return nil
	}
	return c.session.Load()
}

func (c *conn) Close() error {
	c.mu.Lock()
	f := finished
	if c.given {
		f = moved
	}
	c.mu.Unlock()
	return c.end(f)
}

// end closes the connection. The first to do so decides about its fate.
func (c *conn) end(f fate) error {
	first := !c.ended.Swap(true)
	err := c.Conn.Close()
	if first {
		if s := c.session.Load(); s != nil {
			s.over()
		}
		c.d.forget(c, f)
	}
	return err
}

// preface is what every client of HTTP/2 begins with (RFC 9113, section 3.4), and preface1
// what looks like a request in it.
const (
	preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
	preface1 = "PRI * HTTP/2.0"
)

// arrived notes that bytes were read. It returns false if they come too late.
func (c *conn) arrived() bool {
	for {
		p := c.phase.Load()
		switch {
		case p == taken:
			return false
		case p == busy || p == hijacked || p == idle && c.h2.Load():
			// Frames that belong to no request keep no HTTP/2 connection open.
			return true
		case p == fresh && c.d.cfg.TLS != nil:
			// Nor does a handshake; nobody tells when it ends. Whoever stalls in it, or
			// in his first request, has the lame-duck time.
			c.idleNow()
			return true
		}
		if c.phase.CompareAndSwap(p, busy) {
			return true
		}
	}
}

// sniff looks, in what the server is about to get, whether the client speaks HTTP/2.
func (c *conn) sniff(b []byte) {
	if c.sniffed < 0 {
		return
	}
	n := min(len(b), len(preface)-c.sniffed)
	if string(b[:n]) != preface[c.sniffed:c.sniffed+n] {
		c.sniffed = -1
		return
	}
	if c.sniffed += n; c.sniffed == len(preface) {
		c.sniffed = -1
		s := newSession(c, c.Conn, 0)
		s.took(b[n:])
		c.speaks(s)
	}
}

// speaks notes that the connection is one of HTTP/2.
func (c *conn) speaks(s *session) {
	c.h2.Store(true)
	c.session.Store(s)
	if c.ended.Load() {
		s.over()
	}
	c.d.opened(s)
}

// became notes what the http.Server says about the connection, directly or through
// what has wrapped it.
func (c *conn) became(s http.ConnState, direct bool) {
	if c.movable && (s == http.StateActive || s == http.StateIdle || !direct) {
		c.mu.Lock()
		switch {
		case !direct:
			c.held.never = true
			c.held.forget()
		case s == http.StateIdle:
			c.held.becameIdle()
		default:
			c.held.forget()
			c.post = false
		}
		c.mu.Unlock()
	}
	if !direct && c.d.cfg.TLS == nil {
		c.h2.Store(true)
	}
	switch s {
	case http.StateActive: // perhaps with bytes that were read before it was idle
		if !c.phase.CompareAndSwap(idle, busy) {
			c.phase.CompareAndSwap(fresh, busy)
		}
	case http.StateIdle:
		c.idleNow()
		c.phase.CompareAndSwap(busy, idle)
		if s := c.session.Load(); s != nil {
			s.look()
		}
	case http.StateHijacked:
		c.phase.CompareAndSwap(busy, hijacked)
	}
}

// take is the drain's claim to close an idle connection.
func (c *conn) take() bool {
	return c.phase.CompareAndSwap(idle, taken) || c.phase.CompareAndSwap(fresh, taken)
}

// farewell tells a client of HTTP/1 on TLS that what it has read is all that there is
// (close_notify in RFC 8446, section 6.1), if that can be written at once. The connection is
// taken, so that the server writes nothing.
func (c *conn) farewell() {
	tc := c.secure.Load()
	if tc == nil || c.h2.Load() || !writable(c.Conn) {
		return
	}
	c.parting.Store(true)
	_ = tc.CloseWrite() // does nothing before the handshake has ended
	c.parting.Store(false)
}

// leaves tells whether its session is ending it.
func (c *conn) leaves() bool {
	s := c.session.Load()
	return s != nil && s.leaving.Load()
}

func (c *conn) isIdle() bool { return c.d.http && c.phase.Load() <= idle }

// idleNow: a time begins in which nothing is asked.
func (c *conn) idleNow() {
	if c.d.begun.Load() {
		c.since.Store(int64(time.Since(c.d.since)))
	}
}

// idleSince is the time from the drain's beginning to that of the idle time, or 0.
func (c *conn) idleSince() time.Duration { return time.Duration(c.since.Load()) }

// state is for people.
func (c *conn) state() string {
	if !c.d.http {
		return "open"
	}
	return [...]string{fresh: "new", idle: "idle", busy: "active", hijacked: "hijacked", taken: "closing"}[c.phase.Load()]
}

// timedOut tells a deadline from other errors.
func timedOut(err error) bool { return errors.Is(err, os.ErrDeadlineExceeded) }
