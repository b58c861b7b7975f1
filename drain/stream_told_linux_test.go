package drain

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/moving"
)

// Move says why it does not.
func TestStreamMoveErrors(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	errs := make(chan error)
	a := r.streams(func(ctx context.Context, c *Stream) {
		errs <- c.Move(nil) // no drain
		read := make(chan error)
		go func() { _, err := c.Read(make([]byte, 1)); read <- err }()
		until(t, "it reads", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.reads > 0 })
		errs <- c.Move(nil)
		<-ctx.Done()
		errs <- <-read
		_ = c.Close()
		errs <- c.Move(nil)
	})
	dial(t, r.ln.Addr())
	for i, want := range []error{ErrNotNow, ErrInUse, ErrLeave, net.ErrClosed} {
		if i == 2 {
			r.streams(tally(t, "b"))
			a.retire()
		}
		if err := <-errs; !errors.Is(err, want) {
			t.Errorf("%v, want %v", err, want)
		}
	}
	a.drained(1, 0, 0)
}

// Nobody takes: who gives away serves on, and gives away later.
func TestStreamNobodyTakes(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 20} { // fewer than the queue has room for, and more
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, "tcp")
			a := r.streams(tally(t, "a"))
			clients := make([]*client, n)
			for i := range clients {
				clients[i] = dial(t, r.ln.Addr())
				clients[i].send("one\nha")
				clients[i].says(`1 "one\n" a`)
			}
			until(t, "halves have been read", func() bool { return a.quietStreams(n) })
			a.retire()
			until(t, "some come back", func() bool { in, _ := a.Moved(); return in > 0 })
			for _, c := range clients {
				c.send("lf\n")
				c.says(`2 "half\n" a`)
			}
			b := r.streams(tally(t, "b"))
			a.drained(0, 0, 0)
			for _, c := range clients {
				c.send("three\n")
				c.says(`3 "three\n" b`)
			}
			if open, _ := b.Active(); open != n {
				t.Errorf("%d are open", open)
			}
			if in, out := a.Moved(); out-in != n {
				t.Errorf("%d came back, %d went", in, out)
			}
		})
	}
}

// Who could not move for want of room is told again when there is some.
func TestStreamToldAgain(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	told, errs := make(chan bool), make(chan error)
	var again atomic.Bool // who has just stopped taking may get its own once more
	a := r.streams(func(ctx context.Context, c *Stream) {
		for b := make([]byte, 1); ; {
			if _, err := c.Read(b); !errors.Is(err, ErrLeave) {
				return
			}
			if again.Load() {
				if c.Move(nil) == nil {
					return
				}
				continue
			}
			told <- true
			<-told
			err := c.Move(nil)
			if errs <- err; err == nil {
				return
			}
		}
	})
	c := dial(t, r.ln.Addr())
	until(t, "it reads", func() bool { return a.quietStreams(1) })
	a.retire()
	<-told
	q := r.queue() // is full of what neither takes
	control(t, c.Conn, func(fd int) (err error) {
		for err == nil {
			err = q.Send(fd, moving.Message{})
		}
		return nil
	})
	told <- true
	if err := <-errs; !errors.Is(err, ErrNotNow) {
		t.Errorf("the queue is full: %v", err)
	}
	for {
		_, fd, err := q.TryReceive(moving.HTTP)
		if err != nil {
			break
		}
		unix.Close(fd)
	}
	r.streams(func(_ context.Context, c *Stream) { io.WriteString(c, "moved\n") })
	<-told
	again.Store(true)
	told <- true
	if err := <-errs; err != nil {
		t.Errorf("there is room: %v", err)
	}
	c.says("moved")
	a.drained(0, 0, 0)
}

// A deadline of the application's is one, and no other is seen.
func TestStreamDeadline(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	errs := make(chan error)
	a := r.streams(func(ctx context.Context, c *Stream) {
		b := make([]byte, 1)
		_ = c.SetReadDeadline(time.Now().Add(time.Millisecond))
		_, err := c.Read(b)
		errs <- err
		_ = c.SetDeadline(time.Now().Add(time.Hour))
		_, err = c.Read(b)
		errs <- err
		c.mu.Lock()
		poked := c.poked
		c.mu.Unlock()
		if poked {
			t.Error("the socket's deadline is still in the past")
		}
		_ = c.SetReadDeadline(past)
		_, err = c.Read(b)
		errs <- err
		_ = c.SetReadDeadline(time.Time{})
		_, err = c.Read(b)
		errs <- err
		errs <- c.Move(nil)
	})
	c := dial(t, r.ln.Addr())
	for i, want := range []error{os.ErrDeadlineExceeded, ErrLeave, os.ErrDeadlineExceeded, nil, nil} {
		switch i {
		case 1:
			r.streams(func(_ context.Context, c *Stream) { io.WriteString(c, "moved\n") })
			a.retire()
		case 3:
			c.send("x")
		}
		if err := <-errs; !errors.Is(err, want) {
			t.Errorf("%d: %v, want %v", i, err, want)
		}
	}
	c.says("moved")
	a.drained(0, 0, 0)
}
