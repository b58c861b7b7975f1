package drain

import (
	"errors"
	"fmt"
	"net"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/moving"
)

// This file is how streams leave for other processes. Only their handlers know when that
// can be done and what has to go with them, so a handler is told, and calls Move.

// MaxState is how many bytes of state can go with a connection.
const MaxState = moving.MaxState

// Move gives the connection to the process that takes over, whose Handler gets it with the
// state, of at most [MaxState] bytes; up to 4 KiB costs nothing extra. It returns nil when
// the connection is gone: the handler has nothing to do any more but to return. With an
// error, all is as it was, and the handler may go on, say goodbye, or try again.
//
// The context of the handler ends, and a Read returns [ErrLeave], when there is somebody to
// move to, or when there will not be: then Move returns [ErrNowhere]. ErrNowhere says so at
// the beginning of the drain if the whole service stops, and otherwise when nobody has come
// who takes connections in most of the drain's time. What neither moves nor ends is awaited
// until the drain's timeout, and cut then.
//
// No byte is lost: what has not been read stays in the socket for the next process, and what
// was written is on its way. But what the handler has read, and not handled yet, is for it
// to put into the state: a half message, and what a bufio.Reader holds. Nothing else of the
// process goes along: no deadlines, no goroutines, no values of a context.
//
// Move waits for as long as others move, and for 50 ms if nobody does. Before a drain it
// returns ErrNotNow.
func (s *Stream) Move(state []byte) error {
	if len(state) > MaxState {
		return fmt.Errorf("%w: %d bytes, at most %d can be", ErrState, len(state), MaxState)
	}
	if state == nil {
		state = []byte{}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	defer s.answerLocked()
	switch {
	case s.moved:
		return ErrMoved
	case s.c.ended.Load():
		return fmt.Errorf("drain: move: %w", net.ErrClosed)
	case s.reads+s.writes > 0:
		return ErrInUse
	case !s.c.movable:
		return fmt.Errorf("%w: it is not a socket and nothing else, or this process has no queue", ErrNowhere)
	}
	if err := s.c.d.send(s.c, state); err != nil {
		if errors.Is(err, ErrNowhere) {
			s.told = min(s.told, nowhere) // and again if there is somebody after all
		} else {
			s.told = nothing // and again later
		}
		wake(s.c.d.giver)
		return err
	}
	s.moved, s.due = true, false
	s.c.mu.Lock()
	s.c.given = true
	s.c.mu.Unlock()
	_ = s.c.Close()
	return nil
}

// send queues a stream.
func (d *Drainer) send(c *conn, state []byte) error {
	d.sending.Lock()
	defer d.sending.Unlock()
	for {
		switch w, _ := d.situation().say(); {
		case w == nowhere:
			return fmt.Errorf("%w: nobody takes connections of this one", ErrNowhere)
		case w == nothing:
			return fmt.Errorf("%w: nobody takes connections at the moment", ErrNotNow)
		}
		// Of a connection that is closed meanwhile, this is an error, too.
		raw, err := c.Conn.(syscall.Conn).SyscallConn()
		if err == nil {
			cerr := raw.Control(func(fd uintptr) {
				err = d.cfg.Queue.Send(int(fd), moving.Message{Kind: moving.Stream, State: state})
			})
			if cerr != nil {
				return fmt.Errorf("drain: move: %w", cerr)
			}
		}
		if err == nil {
			return nil
		}
		d.notGiven(err)
		if d.full.Load() {
			d.awaitRoom()
		}
	}
}

// awaitRoom waits until the queue has room. If there is none for a while, nothing is given
// away for a while.
func (d *Drainer) awaitRoom() bool {
	room, waited := d.cfg.Queue.AwaitRoom(time.Now().Add(roomTime))
	if !room {
		d.takeBack()
		return false
	}
	if d.full.Swap(false) && !waited {
		time.Sleep(pause) // it is another limit that was reached
	}
	return true
}

// answerTime is how long the next handler is not told while one that was waiting does
// nothing about it.
const answerTime = 5 * time.Millisecond

// tellStreams tells handlers, until the end.
func (d *Drainer) tellStreams(end <-chan struct{}) {
	for {
		w, next := d.situation().say()
		if w != nothing {
			d.tellAll(w, end)
		}
		var later <-chan time.Time
		if next > 0 {
			later = time.After(next)
		}
		select {
		case <-d.giver:
		case <-later:
		case <-end:
			return
		}
	}
}

// tellAll tells all handlers that have not been told yet. Those that may move are told one
// after the other, when there is room: until then they serve their clients.
func (d *Drainer) tellAll(w word, end <-chan struct{}) {
	for _, c := range d.open() {
		s := c.stream.Load()
		if s == nil {
			continue // about to be started, which wakes us
		}
		if w == away {
			if !s.untold() { // which waits for a Move that is under way
				continue
			}
			d.sending.Lock()
			room := d.giving() && d.awaitRoom()
			d.sending.Unlock()
			if !room {
				return
			}
		}
		answered := s.tell(w)
		if answered == nil || w != away {
			continue
		}
		select {
		case <-answered:
		case <-time.After(answerTime):
		case <-end:
			return
		}
	}
}

func (s *Stream) untold() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.told < away && !s.moved
}

// tell tells the handler. The channel, if there is one, is closed when it has done
// something about it.
func (s *Stream) tell(w word) (answered <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if w <= s.told || s.moved {
		return nil
	}
	s.told = w
	s.leave()
	if s.pinned {
		return nil
	}
	s.due = true
	if s.reads == 0 {
		return nil
	}
	if s.answered == nil {
		s.answered = make(chan struct{})
	}
	s.poked = true
	_ = s.c.Conn.SetReadDeadline(past)
	return s.answered
}
