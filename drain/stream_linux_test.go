package drain

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"slices"
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

// When the service stops, handlers are told at once, and nothing is queued.
func TestStreamStop(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	r.conf.LameDuck = time.Hour
	a := r.streams(tally(t, "a"))
	c := dial(t, r.ln.Addr())
	c.send("one\nhalf")
	c.says(`1 "one\n" a`)
	until(t, "half has been read", func() bool { return a.quietStreams(1) })
	a.DrainQueue(time.Hour)
	c.says(`1 "half" goodbye`)
	c.closed()
	a.drained(1, 0, 0)
	if r.queue().Pending() {
		t.Error("something is queued")
	}
}

// quietStreams tells whether all of so many handlers wait for more.
func (g *running) quietStreams(n int) bool {
	conns := g.open()
	for _, c := range conns {
		s := c.stream.Load()
		if s == nil || readable(c.Conn) {
			return false
		}
		s.mu.Lock()
		reads := s.reads
		s.mu.Unlock()
		if reads == 0 {
			return false
		}
	}
	return len(conns) == n
}

// Where nothing can move, handlers are told so when the drain begins.
func TestStreamNowhere(t *testing.T) {
	t.Parallel()
	for name, ln := range map[string]func(net.Listener) net.Listener{
		"no queue": func(ln net.Listener) net.Listener { return ln },
		"wrapped":  func(ln net.Listener) net.Listener { return wrappedListener{ln} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, "tcp")
			cfg := Config{}
			if name == "wrapped" {
				cfg.Queue = r.queue()
			}
			a := serve(t, &Streams{Handler: tally(t, "a")}, ln(hold(t, r.ln)), cfg)
			c := dial(t, r.ln.Addr())
			c.send("one\n")
			c.says(`1 "one\n" a`)
			a.Move(Give)
			a.Drain(0)
			c.says(`1 "" goodbye`)
			a.drained(1, 0, 0)
		})
	}
}

// What neither moves nor ends is cut at the end, counted and named.
func TestStreamCut(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	var told, ended atomic.Int64
	in := make(chan struct{}, 2)
	a := r.streams(func(ctx context.Context, c *Stream) {
		in <- struct{}{}
		<-ctx.Done()
		told.Add(1)
		for {
			if _, err := c.Read(make([]byte, 1)); errors.Is(err, ErrLeave) {
				told.Add(1)
			} else if err != nil {
				ended.Add(1)
				return
			}
		}
	})
	c, other := dial(t, r.ln.Addr()), dial(t, r.ln.Addr())
	<-in
	<-in
	if open, idle := a.Active(); open != 2 || idle != 0 {
		t.Errorf("%d open, %d idle", open, idle)
	}
	if list := a.Open(9); len(list) != 2 || list[0].State != "open" {
		t.Errorf("%+v", list)
	}
	a.DrainQueue(50 * time.Millisecond)
	c.closed()
	other.closed()
	rep := a.drained(0, 0, 2)
	if names := []string{c.LocalAddr().String(), other.LocalAddr().String()}; !slices.Contains(names, rep.CutConns[0]) || rep.CutConns[0] == rep.CutConns[1] {
		t.Errorf("%q of %q were cut", rep.CutConns, names)
	}
	if told.Load() != 4 || ended.Load() != 2 { // by the context and by Read, once each
		t.Errorf("told %d times, %d ended", told.Load(), ended.Load())
	}
}

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

// TLS goes on after a handler was told, and what does not want to be told is not.
func TestStreamTLS(t *testing.T) {
	t.Parallel()
	for _, pinned := range []bool{false, true} {
		t.Run(fmt.Sprintf("pinned %t", pinned), func(t *testing.T) {
			t.Parallel()
			site := httptest.NewTLSServer(nil) // has a certificate
			cert := site.TLS.Certificates[0]
			site.Close()
			r := newRelay(t, "tcp")
			var told atomic.Int64
			a := r.streams(func(ctx context.Context, c *Stream) {
				if pinned {
					c.Pin()
				}
				tc := tls.Server(c, &tls.Config{Certificates: []tls.Certificate{cert}})
				defer tc.Close()
				for rd := bufio.NewReader(tc); ; {
					line, err := rd.ReadString('\n')
					if errors.Is(err, ErrLeave) {
						told.Add(1)
						continue
					}
					if err != nil {
						return
					}
					io.WriteString(tc, line)
				}
			})
			nc := dial(t, r.ln.Addr())
			c := newClient(t, tls.Client(nc.Conn, &tls.Config{InsecureSkipVerify: true}))
			c.send("one\n")
			c.says("one")
			r.streams(tally(t, "b"))
			a.retire()
			if !pinned {
				until(t, "it is told", func() bool { return told.Load() > 0 })
			}
			for range 3 {
				c.send("two\n")
				c.says("two")
			}
			c.Close()
			a.drained(1, 0, 0)
			if n := told.Load(); n > 0 == pinned {
				t.Errorf("told %d times", n)
			}
		})
	}
}

// A panic ends its own connection.
func TestStreamPanic(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := r.streams(func(ctx context.Context, c *Stream) {
		b := make([]byte, 1)
		if must(c.Read(b)); b[0] == 'p' {
			panic("no luck")
		}
		io.WriteString(c, "fine\n")
	})
	bad, good := dial(t, r.ln.Addr()), dial(t, r.ln.Addr())
	bad.send("p")
	bad.closed()
	good.send("x")
	good.says("fine")
	good.closed()
	a.Drain(0)
	<-a.Done()
}

// Servers of another kind leave what is queued alone, and it comes back.
func TestKindsOfServers(t *testing.T) {
	t.Parallel()
	t.Run("stream", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		a := r.streams(tally(t, "a"))
		c := dial(t, r.ln.Addr())
		c.send("one\n")
		c.says(`1 "one\n" a`)
		b := r.start(newSite())
		a.retire()
		until(t, "it comes back", func() bool { in, _ := a.Moved(); return in > 0 })
		c.send("two\n")
		c.says(`2 "two\n" a`)
		if in, _ := b.Moved(); in != 0 {
			t.Errorf("%d were taken for HTTP", in)
		}
		b.Drain(0)
		<-b.Done()
		r.streams(tally(t, "c"))
		a.drained(0, 0, 0)
		c.send("three\n")
		c.says(`3 "three\n" c`)
	})
	t.Run("HTTP", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		a := r.start(newSite())
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		a.waits("")
		b := r.streams(tally(t, "b"))
		a.retire()
		until(t, "it comes back", func() bool { in, _ := a.Moved(); return in > 0 })
		c.get("/")
		c.expect("hello", false)
		if in, _ := b.Moved(); in != 0 {
			t.Errorf("%d were taken for streams", in)
		}
		r.start(newSite())
		a.drained(0, 0, 0)
		c.get("/")
		c.expect("hello", false)
	})
	// One whose giver has died does not keep others from who serves them.
	t.Run("orphan", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		orphan := r.queued()
		a := r.streams(tally(t, "a"))
		c := dial(t, r.ln.Addr())
		c.send("one\n")
		c.says(`1 "one\n" a`)
		r.streams(tally(t, "b"))
		a.retire()
		a.drained(0, 0, 0)
		c.send("two\n")
		if got, err := c.r.ReadString('\n'); err != nil || !strings.HasPrefix(got, `2 "two\n" `) {
			t.Errorf("%q, %v", got, err)
		}
		r.start(newSite())
		orphan.get("/")
		orphan.expect("hello", false)
	})
}

// Streams belong to one Drainer.
func TestStreamsConfig(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	defer ln.Close()
	if _, err := New(&Streams{}, ln, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("no handler: %v", err)
	}
	s := &Streams{Handler: tally(t, "a")}
	if err := s.Serve(ln); !errors.Is(err, ErrConfig) {
		t.Errorf("without a Drainer: %v", err)
	}
	d := must(New(s, ln, quiet(Config{})))
	if _, err := New(s, ln, Config{}); !errors.Is(err, ErrConfig) {
		t.Errorf("a second Drainer: %v", err)
	}
	d.Drain(0)
	if err := s.Shutdown(t.Context()); err != nil {
		t.Errorf("nothing to shut down: %v", err)
	}
	if err := d.Deliver(nil); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("delivered: %v", err)
	}
}

// FuzzStream: whatever is sent, in whatever pieces, moved in between or not, and ended half or
// whole, is echoed once and in order, whoever does it.
func FuzzStream(f *testing.F) {
	for _, tcp := range []bool{false, true} {
		for seed := range byte(12) {
			steps := make([]byte, 60)
			for i := range steps {
				sum := sha256.Sum256([]byte{seed, byte(i)})
				steps[i] = sum[0]
			}
			f.Add(steps, tcp)
		}
		f.Add(bytes.Repeat([]byte{1, 0xff}, 20), tcp)
		f.Add(bytes.Repeat([]byte{0xff}, 10), tcp)
	}
	f.Fuzz(func(t *testing.T, steps []byte, tcp bool) {
		network := "unix"
		if tcp {
			network = "tcp"
		}
		r := newRelay(t, network)
		// The state is a piece that was read and not written yet, and how many bytes there were.
		echo := func(ctx context.Context, c *Stream) {
			var total int
			var rest []byte
			if s := c.State(); s != nil {
				total, rest = int(s[0])|int(s[1])<<8|int(s[2])<<16, s[3:]
			}
			for b := make([]byte, 100); ; {
				n, err := c.Read(b[:1+total%len(b)])
				total += n
				rest = append(rest, b[:n]...)
				switch {
				case errors.Is(err, ErrLeave):
					err := c.Move(append([]byte{byte(total), byte(total >> 8), byte(total >> 16)}, rest...))
					if err == nil {
						return
					}
					if !errors.Is(err, ErrNotNow) {
						t.Errorf("Move: %v", err)
						return
					}
				case err != nil:
					fmt.Fprintf(c, "%s|%d %v", rest, total, err)
					_ = c.CloseWrite()
					return
				case total%3 == 0: // else it waits for more
					c.Write(rest)
					rest = nil
				}
			}
		}
		g := r.streams(echo)
		c := dial(t, r.ln.Addr())
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		var got []byte
		read := inBackground(func() { got, _ = io.ReadAll(c.Conn) })
		var sent []byte
		for i, s := range steps[:min(len(steps), 100)] {
			if s >= 0xc0 && len(r.gens) < 12 {
				next := r.streams(echo)
				g.retire()
				if s&1 != 0 { // else the next step does not wait for it
					<-g.Done()
				}
				g = next
				continue
			}
			piece := bytes.Repeat([]byte{'a' + byte(i%26)}, int(s))
			sent = append(sent, piece...)
			c.send(string(piece))
		}
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		<-read
		if want := fmt.Sprintf("%s|%d EOF", sent, len(sent)); string(got) != want {
			same := 0
			for same < min(len(got), len(want)) && got[same] == want[same] {
				same++
			}
			t.Errorf("got %d bytes, want %d, and the first %d are right: %.50q, want %.50q", len(got), len(want), same, got[same:], want[same:])
		}
		g.Drain(0)
		moved := 0
		for _, g := range r.gens {
			<-g.Done()
			rep := g.Report()
			moved += rep.Moved
			if rep.Cut+rep.ClosedIdle != 0 {
				t.Errorf("%+v", rep)
			}
		}
	})
}
