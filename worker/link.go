package worker

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// link is the channel to the parent, which is another one when another parent has come.
// Without a parent there is none. Its methods may be called from any goroutine.
type link struct {
	conn atomic.Pointer[wire.Conn] // nil: none

	mu       sync.Mutex // held while it is exchanged or closed
	closed   bool
	deadline time.Time // of writing
}

func (l *link) get() *wire.Conn { return l.conn.Load() }

// set exchanges the channel, and calls begin, if it is not nil. The one before is closed, and so is
// this one if the link was.
func (l *link) set(c *wire.Conn, begin func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if before := l.conn.Swap(c); before != nil {
		before.Close()
	}
	if !l.deadline.IsZero() {
		_ = c.SetWriteDeadline(l.deadline)
	}
	if begin != nil {
		begin()
	}
	if l.closed {
		c.Close()
	}
}

func (l *link) setWriteDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if c := l.conn.Load(); c != nil {
		_ = c.SetWriteDeadline(t)
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if c := l.conn.Load(); c != nil {
		c.Close()
	}
}
