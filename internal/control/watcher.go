package control

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// pending is how many events wait for a watcher that does not read before
	// some are left out.
	pending = 256
	// writeTime is how long one that does not read is waited for at the end.
	writeTime = 2 * time.Second
)

// giveTime is the same at a commit, when nobody decides meanwhile. Tests have more of it.
var giveTime = 100 * time.Millisecond

// Watcher is somebody who watches an upgrade, or what else was asked for. Its methods may be called from any
// goroutine.
type Watcher struct {
	conn  net.Conn
	close func() // conn, and what is to be done then

	mu     sync.Mutex
	ended  bool
	events chan Event
	done   chan struct{} // closed when all events are written
	torn   bool          // a line was cut off: nothing can follow it; the writer's until done
}

func newWatcher(conn net.Conn, ended func()) *Watcher {
	w := &Watcher{conn: conn, close: func() { conn.Close(); ended() }}
	w.open()
	return w
}

// ResumeWatcher goes on with one that another process had. It owns f.
func ResumeWatcher(f *os.File) (*Watcher, error) {
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, fmt.Errorf("a watcher of the upgrade is lost: %w", err)
	}
	return newWatcher(c, func() {}), nil
}

// open begins to write events.
func (w *Watcher) open() {
	events, done := make(chan Event, pending), make(chan struct{})
	w.events, w.done = events, done
	go func() {
		defer close(done)
		for ev := range events {
			w.write(ev)
		}
	}()
}

// write writes an event, whole or not at all unless the watcher is lost with it: who
// goes on after this process has to begin with a line. That one has gone is no concern
// of the upgrade.
func (w *Watcher) write(ev Event) {
	line, err := json.Marshal(ev)
	if err != nil || w.torn {
		return
	}
	n, err := w.conn.Write(append(line, '\n'))
	w.torn = err != nil && n > 0
}

// flush waits until all events are written, but not longer than that. What does not
// get written is left out. The caller holds mu.
func (w *Watcher) flush(wait time.Duration) {
	_ = w.conn.SetWriteDeadline(time.Now().Add(wait))
	close(w.events)
	<-w.done
}

// Tell sends an event, and does not wait for it to be read.
func (w *Watcher) Tell(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	ev.Time = time.Now()
	select {
	case w.events <- ev:
	default: // what counts is the last one
	}
}

// End sends the last event and closes the connection.
func (w *Watcher) End(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	w.flush(writeTime)
	ev.Time = time.Now()
	w.write(ev)
	w.close()
}

// Leave sends the last event and leaves the connection open: its end is that of this
// process.
func (w *Watcher) Leave(ev Event) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return
	}
	w.ended = true
	w.flush(writeTime)
	ev.Time = time.Now()
	w.write(ev)
}

// Give writes what waits, as far as it is read, and returns a copy of the connection for another process.
// This one's goes on, or is closed by Drop.
func (w *Watcher) Give() (*os.File, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.ended {
		return nil, net.ErrClosed
	}
	w.flush(giveTime)
	if w.torn {
		w.ended = true
		w.close()
		return nil, fmt.Errorf("%w: it does not read", net.ErrClosed)
	}
	_ = w.conn.SetWriteDeadline(time.Time{})
	w.open()
	rc, err := w.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	if cerr := rc.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); cerr != nil {
		return nil, cerr
	}
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	return os.NewFile(uintptr(fd), "watcher"), nil
}

// Drop closes this process's copy of a connection that another process has.
func (w *Watcher) Drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !w.ended {
		w.ended = true
		w.flush(giveTime)
		w.close()
	}
}
