package drain

import (
	"bytes"
	"io"
	"net"
	"net/http"
	"sync/atomic"
	"time"
)

// What an http.Server's connection is doing. A connection of another server stays
// fresh, and nobody asks.
const (
	fresh    uint32 = iota // accepted, and nothing was read
	idle                   // waits for its next request
	busy                   // something of a request was read, or it is being answered
	hijacked               // belongs to a handler
	taken                  // about to be closed by the drain: what is read now is not served
)

// fate is what becomes of a connection.
type fate int

const (
	finished fate = iota // somebody else closed it
	closedIdle
	cut
)

// conn is a connection that its Drainer knows. It embeds the interface, so that
// nothing of the real connection's type goes past it.
type conn struct {
	net.Conn
	d     *Drainer
	phase atomic.Uint32
	h2    atomic.Bool  // speaks HTTP/2 in plaintext
	since atomic.Int64 // of phase idle: nanoseconds after the drain's beginning, or 0
	ended atomic.Bool
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
func (c *halfConn) CloseWrite() error { return c.half.CloseWrite() }

// wrap makes the connection that the server gets.
func wrap(d *Drainer, nc net.Conn) (*conn, net.Conn) {
	half, ok := nc.(interface{ CloseWrite() error })
	if !ok {
		c := &conn{Conn: nc, d: d}
		return c, c
	}
	from, ok := nc.(io.ReaderFrom)
	if !ok {
		c := &halfConn{conn: conn{Conn: nc, d: d}, half: half}
		return &c.conn, c
	}
	c := &fileConn{halfConn: halfConn{conn: conn{Conn: nc, d: d}, half: half}, ReaderFrom: from}
	return &c.conn, c
}

// tracked finds the conn in what a hook of the server's was given, which may be
// wrapped once more (HTTP/2 does). It is nil if there is none.
func tracked(nc net.Conn) *conn {
	for {
		switch c := nc.(type) {
		case *fileConn:
			return &c.conn
		case *halfConn:
			return &c.conn
		case *conn:
			return c
		case interface{ NetConn() net.Conn }:
			nc = c.NetConn()
		default:
			return nil
		}
	}
}

// NetConn returns the connection that was accepted. What is done to it is not
// seen by the drain.
func (c *conn) NetConn() net.Conn { return c.Conn }

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if n > 0 && c.d.http && !c.arrived(p[:n]) {
		return 0, net.ErrClosed
	}
	return n, err
}

func (c *conn) Close() error { return c.end(finished) }

// end closes the connection. The first to do so decides about its fate.
func (c *conn) end(f fate) error {
	first := !c.ended.Swap(true)
	err := c.Conn.Close()
	if first {
		c.d.forget(c, f)
	}
	return err
}

// preface is what every HTTP/2 connection begins with (RFC 9113, section 3.4).
var preface = []byte("PRI * HTTP/2.0")

// arrived notes that bytes were read. It returns false if they come too late.
func (c *conn) arrived(b []byte) bool {
	for {
		p := c.phase.Load()
		switch {
		case p == taken:
			return false
		case p == busy || p == hijacked || p == idle && c.h2.Load():
			// Frames that belong to no request keep no HTTP/2 connection open.
			return true
		case p == fresh:
			c.h2.Store(bytes.HasPrefix(b, preface))
		}
		if c.phase.CompareAndSwap(p, busy) {
			return true
		}
	}
}

// became notes what the http.Server says about the connection.
func (c *conn) became(s http.ConnState) {
	switch s {
	case http.StateActive: // perhaps with bytes that were read before it was idle
		if !c.phase.CompareAndSwap(idle, busy) {
			c.phase.CompareAndSwap(fresh, busy)
		}
	case http.StateIdle:
		if c.d.begun.Load() {
			c.since.Store(int64(time.Since(c.d.since)))
		}
		c.phase.CompareAndSwap(busy, idle)
	case http.StateHijacked:
		c.phase.CompareAndSwap(busy, hijacked)
	}
}

// take is the drain's claim to close an idle connection.
func (c *conn) take() bool {
	return c.phase.CompareAndSwap(idle, taken) || c.phase.CompareAndSwap(fresh, taken)
}

func (c *conn) isIdle() bool { return c.d.http && c.phase.Load() <= idle }

// idleSince is the time from the drain's beginning to that of the idle time, or 0.
func (c *conn) idleSince() time.Duration { return time.Duration(c.since.Load()) }

// state is for people.
func (c *conn) state() string {
	if !c.d.http {
		return "open"
	}
	return [...]string{fresh: "new", idle: "idle", busy: "active", hijacked: "hijacked", taken: "closing"}[c.phase.Load()]
}
