package drain

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/moving"
)

// streams starts a generation of handlers of connections.
func (r *relay) streams(h func(context.Context, *Stream)) *running {
	r.t.Helper()
	cfg := r.conf
	cfg.Queue = r.queue()
	g := serve(r.t, &Streams{Handler: h}, hold(r.t, r.ln), cfg)
	g.Move(Take)
	r.gens = append(r.gens, g)
	return g
}

// tally answers each line with its number, itself, and who answers. What the connection has
// had so far moves along.
func tally(t testing.TB, who string) func(context.Context, *Stream) {
	return func(_ context.Context, c *Stream) {
		n, line := 0, ""
		fmt.Sscanf(string(c.State()), "%d %q", &n, &line)
		for r := bufio.NewReader(c); ; {
			more, err := r.ReadString('\n')
			switch line += more; {
			case err == nil:
				n++
				fmt.Fprintf(c, "%d %q %s\n", n, line, who)
				line = ""
			case errors.Is(err, ErrLeave):
				switch err := c.Move(fmt.Appendf(nil, "%d %q", n, line)); {
				case err == nil:
					return
				case errors.Is(err, ErrNowhere):
					fmt.Fprintf(c, "%d %q goodbye\n", n, line)
					return
				case !errors.Is(err, ErrNotNow):
					t.Errorf("Move: %v", err)
				}
			default:
				if !errors.Is(err, net.ErrClosed) { // cut
					fmt.Fprintf(c, "%d %q %v\n", n, line, err)
				}
				return
			}
		}
	}
}

// says checks the next line of an answer.
func (c *client) says(format string, args ...any) {
	c.t.Helper()
	want := fmt.Sprintf(format, args...)
	if got, err := c.r.ReadString('\n'); got != want+"\n" || err != nil {
		c.t.Errorf("answer %q, %v, want %q", got, err, want)
	}
}

// A connection moves after every byte of what the client sends, over as many generations.
func TestStreamMoves(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp4", "tcp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, network)
			g := r.streams(tally(t, "0"))
			c := dial(t, r.ln.Addr())
			until(t, "it is accepted", func() bool { return g.Served() == 1 })
			sent := "one\ntwo\nand three\n\n"
			lines := 0
			for i, b := range []byte(sent) {
				c.send(string(b))
				if b == '\n' {
					lines++
					c.says("%d %q %d", lines, strings.SplitAfter(sent, "\n")[lines-1], i)
				}
				next := r.streams(tally(t, fmt.Sprint(i+1)))
				g.retire()
				rep := g.drained(0, 0, 0)
				if rep.Moved < 1 {
					t.Errorf("%+v", rep)
				}
				g = next
			}
			_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
			c.says("%d %q EOF", lines, "")
			c.closed()
		})
	}
}

// States of all sizes arrive as they were.
func TestStreamState(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	states := make(chan []byte, 1)
	generation := func(goes *[]byte) func(context.Context, *Stream) {
		var leaving atomic.Bool // who has just stopped taking may get its own once more
		return func(ctx context.Context, c *Stream) {
			if !leaving.Load() {
				states <- c.State()
			}
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, ErrLeave) {
				return
			}
			if ctx.Err() == nil {
				t.Error("the context goes on")
			}
			leaving.Store(true)
			if err := c.Move(make([]byte, MaxState+1)); !errors.Is(err, ErrState) {
				t.Errorf("too much: %v", err)
			}
			if err := c.Move(*goes); err != nil {
				t.Error(err)
			}
			unusable(t, c)
		}
	}
	var goes []byte
	g := r.streams(generation(&goes))
	c := dial(t, r.ln.Addr())
	if s := <-states; s != nil {
		t.Errorf("new, with a state of %q", s)
	}
	for _, size := range []int{-1, 0, 1, moving.MaxHeld, moving.MaxHeld + 1, 1 << 16, MaxState} {
		goes = nil
		if size >= 0 {
			goes = bytes.Repeat([]byte{byte(size), 'x', 0}, size/3+1)[:size]
		}
		next := r.streams(generation(&goes))
		g.retire()
		if got := <-states; got == nil || !bytes.Equal(got, goes) {
			t.Errorf("%d bytes: %d have come", size, len(got))
		}
		g.drained(0, 0, 0)
		g = next
	}
	c.Close()
}

// unusable checks that nothing can be done with a connection any more.
func unusable(t *testing.T, c *Stream) {
	t.Helper()
	if err := c.Move(nil); !errors.Is(err, ErrMoved) {
		t.Errorf("moved twice: %v", err)
	}
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, net.ErrClosed) {
		t.Errorf("read of what has moved: %v", err)
	}
	if _, err := c.Write(make([]byte, 1)); !errors.Is(err, ErrMoved) {
		t.Errorf("write to what has moved: %v", err)
	}
	if err := errors.Join(c.CloseWrite(), c.SetDeadline(time.Now())); !errors.Is(err, ErrMoved) {
		t.Errorf("CloseWrite, SetDeadline: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Errorf("close: %v", err)
	}
}

// Many move at once, of clients that never stop sending; all that they get is right.
func TestStreamManyMove(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "unix")
	const n, lines, moves = 100, 200, 5
	g := r.streams(tally(t, "x"))
	var enough atomic.Bool // have moved: as fast as clients are, they are there for it
	var clients sync.WaitGroup
	for range n {
		c := dial(t, r.ln.Addr())
		clients.Go(func() {
			for i := 0; i < lines || !enough.Load(); i++ {
				c.send(fmt.Sprintf("line %d\n", i))
				c.says(`%d "line %d\n" x`, i+1, i)
			}
		})
	}
	until(t, "all are accepted", func() bool { return g.Served() == n })
	for range moves {
		next := r.streams(tally(t, "x"))
		g.retire()
		<-g.Done()
		if rep := g.Report(); rep.Finished+rep.Cut+rep.ClosedIdle != 0 || rep.Moved < n {
			t.Errorf("%+v", rep)
		}
		g = next
	}
	enough.Store(true)
	clients.Wait()
}

// What a client has sent before it broke the connection is read where that has moved to.
func TestStreamOfOneWhoHasGone(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	in, gone := make(chan struct{}), make(chan struct{})
	a := r.streams(func(ctx context.Context, c *Stream) {
		close(in)
		<-gone
		<-ctx.Done()
		if err := c.Move([]byte("state")); err != nil {
			t.Error(err)
		}
	})
	c := dial(t, r.ln.Addr())
	<-in
	c.send("last words")
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	until(t, "the client has gone", func() bool {
		return a.open()[0].Conn.(*net.TCPConn) != nil && peerGone(t, a.open()[0].Conn)
	})
	close(gone)
	got := make(chan string)
	r.streams(func(ctx context.Context, c *Stream) {
		b, err := io.ReadAll(c)
		got <- fmt.Sprintf("%s, %s, %v, %q", c.State(), b, err != nil, c.RemoteAddr())
	})
	a.retire()
	if s := <-got; s != `state, last words, true, ":0"` {
		t.Error(s)
	}
	a.drained(0, 0, 0)
}

// peerGone tells whether the kernel knows no peer any more.
func peerGone(t *testing.T, nc net.Conn) (gone bool) {
	control(t, nc, func(fd int) error {
		_, err := unix.Getpeername(fd)
		gone = err != nil
		return nil
	})
	return gone
}
