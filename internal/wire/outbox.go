//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxUrgent bounds the commands that wait for the end of a line: no more are given in
// a worker's life unless it does not read.
const maxUrgent = 64

// Outbox writes to a channel for somebody who must never wait. It holds at most one
// line that is half out, and commands that wait for its end; everything else stays
// with the caller, who is told when there is room again. Nobody else may send on the
// Conn, except that TrySend fails with ErrFull while a line is half out.
//
// Its methods may be called from any goroutine. They never block.
type Outbox struct {
	c     *Conn
	spawn func(func())
	room  func()

	mu      sync.Mutex
	rest    []byte   // of a line that is half out
	urgent  [][]byte // to follow it
	wanted  bool     // somebody was refused
	halted  bool
	err     error         // final
	waiting chan struct{} // closed when the goroutine that waits for room has ended; nil: there is none
}

// NewOutbox writes to c, beginning with what another outbox had left of a line. It runs
// a goroutine by spawn, such as sync.WaitGroup.Go, only while the peer does not read.
// room is called from there once after Put has returned ErrFull, when it may be tried
// again, also if that will fail because the peer has gone.
func NewOutbox(c *Conn, rest []byte, spawn func(func()), room func()) *Outbox {
	o := &Outbox{c: c, spawn: spawn, room: room, rest: rest}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.half(len(rest) > 0)
	o.flush()
	return o
}

// Put writes v as one line of JSON, and files with it, as Conn.Send does. Nil means that
// the line is out, or has begun to be: its end follows by itself, and the files have
// gone. ErrFull means that there is no room and nothing was written. ErrHalted and
// those of Send are final.
func (o *Outbox) Put(v any, files ...*os.File) error {
	line, err := encode(v, int(o.c.maxLine.Load()), files)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.put(line, files)
}

// Urge is Put for a command, which goes before what is put later: if there is no room
// it waits here for the end of a line. ErrFull then means that the peer does not read
// at all. Files do not wait.
func (o *Outbox) Urge(v any, files ...*os.File) error {
	line, err := encode(v, int(o.c.maxLine.Load()), files)
	if err != nil {
		return err
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	wanted := o.wanted
	if err = o.put(line, files); !errors.Is(err, ErrFull) || len(files) > 0 {
		return err
	}
	o.wanted = wanted
	if len(o.urgent) == maxUrgent {
		return err
	}
	o.urgent = append(o.urgent, line)
	return nil
}

// put writes a line, or as much of it as there is room for.
func (o *Outbox) put(line []byte, files []*os.File) error {
	switch {
	case o.err != nil:
		return o.err
	case o.halted:
		return fmt.Errorf("wire: send: %w", ErrHalted)
	case o.waiting != nil:
		o.wanted = true
		return ErrFull
	}
	n, err := o.write(line, files)
	switch {
	case errors.Is(err, unix.EAGAIN):
		o.wanted = true
		o.wait()
		return ErrFull
	case err != nil:
		return err
	case n < len(line):
		o.rest = line[n:]
		o.half(true)
		o.wait()
	}
	return nil
}

// write tries once.
func (o *Outbox) write(p []byte, files []*os.File) (n int, err error) {
	cerr := o.c.raw.Control(func(fd uintptr) {
		o.c.wmu.Lock()
		defer o.c.wmu.Unlock()
		if err = o.c.werr; err == nil {
			n, err = sendmsg(int(fd), p, files)
		}
	})
	switch {
	case cerr != nil:
		return 0, fmt.Errorf("wire: send: %w", os.ErrClosed)
	case errors.Is(err, unix.EAGAIN) || err == nil:
		return n, err
	}
	return n, fmt.Errorf("wire: send: %w", err)
}

// half tells other senders whether a line is half out.
func (o *Outbox) half(v bool) {
	o.c.wmu.Lock()
	defer o.c.wmu.Unlock()
	o.c.midLine = v
}

// flush writes what waits here; it begins to wait for room if there is none.
func (o *Outbox) flush() {
	for o.err == nil && o.waits() {
		line := o.rest
		if len(line) == 0 {
			line = o.urgent[0]
		}
		n, err := o.write(line, nil)
		switch {
		case errors.Is(err, unix.EAGAIN):
			o.wait()
			return
		case err != nil:
			o.err = err
			return
		case len(o.rest) == 0:
			o.urgent = o.urgent[1:]
		}
		o.rest = line[n:]
		o.half(len(o.rest) > 0)
	}
}

// waits reports whether anything waits here.
func (o *Outbox) waits() bool { return len(o.rest) > 0 || len(o.urgent) > 0 }

// wait starts the goroutine that writes when there is room, unless there is one.
func (o *Outbox) wait() {
	if o.waiting != nil || o.halted {
		return
	}
	done := make(chan struct{})
	o.waiting = done
	o.spawn(func() {
		defer close(done)
		o.waited(o.c.raw.Write(o.try))
	})
}

// try is called by the poller until it returns true.
func (o *Outbox) try(fd uintptr) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.halted {
		return true
	}
	if !o.waits() {
		return writable(int(fd))
	}
	o.flush()
	return o.err != nil || !o.waits()
}

// waited is the end of the wait for room. Since there was room others have been here.
func (o *Outbox) waited(err error) {
	o.mu.Lock()
	if err != nil && !o.halted && o.err == nil {
		o.err = fmt.Errorf("wire: send: %w", os.ErrClosed)
	}
	o.waiting = nil
	if !o.halted {
		o.flush()
	}
	tell := o.wanted && o.waiting == nil && !o.halted && !errors.Is(o.err, os.ErrClosed)
	o.wanted = o.wanted && !tell
	o.mu.Unlock()
	if tell {
		o.room()
	}
}

// Halt stops writing, so that another process can go on: it returns what is left of a
// line that is half out, which the other process's outbox has to begin with. Commands
// that wait are dropped: whoever decides gives them anew. Until Unhalt everything
// fails with ErrHalted.
func (o *Outbox) Halt() (rest []byte) {
	o.mu.Lock()
	o.halted = true
	waiting := o.waiting
	if waiting != nil {
		_ = o.c.SetWriteDeadline(longAgo) // fails only on a closed file
	}
	o.mu.Unlock()
	if waiting != nil {
		<-waiting
		_ = o.c.SetWriteDeadline(time.Time{})
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	o.urgent = nil
	rest, o.rest = o.rest, nil
	o.half(false)
	return rest
}

// Unhalt goes on writing, with what Halt has returned. Who was refused before may try
// again.
func (o *Outbox) Unhalt(rest []byte) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.halted, o.wanted = false, false
	o.rest = rest
	o.half(len(rest) > 0)
	o.flush()
}

// writable asks the kernel: the poller tells of changes only.
func writable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}
	n, err := unix.Poll(p, 0)
	return n > 0 || err != nil && err != unix.EINTR
}

// Gone reports whether an error of Put or Urge says that the peer has gone, or that this
// end was closed.
func Gone(err error) bool { return errors.Is(err, syscall.EPIPE) || errors.Is(err, os.ErrClosed) }
