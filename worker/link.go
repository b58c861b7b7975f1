package worker

import (
	"sync"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// link is the channel to the parent, which is another one when another parent has come.
// Without a parent there is none. Its methods may be called from any goroutine.
type link struct {
	mu       sync.Mutex
	conn     *wire.Conn // nil: none
	closed   bool
	deadline time.Time // of writing
}

func (l *link) get() *wire.Conn {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.conn
}

// set exchanges the channel. The one before is closed, and so is this one if the link was.
func (l *link) set(c *wire.Conn) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.conn != nil {
		l.conn.Close()
	}
	l.conn = c
	if !l.deadline.IsZero() {
		_ = c.SetWriteDeadline(l.deadline)
	}
	if l.closed {
		c.Close()
	}
}

func (l *link) setWriteDeadline(t time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.deadline = t
	if l.conn != nil {
		_ = l.conn.SetWriteDeadline(t)
	}
}

func (l *link) close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	if l.conn != nil {
		l.conn.Close()
	}
}
