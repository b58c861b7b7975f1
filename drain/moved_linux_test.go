package drain

import (
	"context"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// This file has the cases in which a connection that moves would lose something, if it
// were not for one line or another.

// only is the only connection of a generation.
func (g *running) only() *conn {
	g.t.Helper()
	open := g.open()
	if len(open) != 1 {
		g.t.Fatalf("%d connections are open", len(open))
	}
	return open[0]
}

// next starts a generation and drains the one before it.
func (r *relay) next() (before, now *running) {
	before = r.gens[len(r.gens)-1]
	now = r.start(describe())
	before.retire()
	return before, now
}

// hasMoved waits until the only connection has gone from one to another.
func hasMoved(from, to *running) {
	from.t.Helper()
	if rep := from.drained(0, 0, 0); rep.Moved == 0 {
		from.t.Fatalf("%+v", rep)
	}
	until(from.t, "it has come", func() bool { in, _ := to.Moved(); return in > 0 })
}

// answered is what describe answers to a request without a body.
func answered(method, target string) string { return method + " " + target + ` HTTP/1.1 x "" <nil>` }

// What the server has read of a next request while it answered the one before is not
// known if it is a line: the connection moves after that request.
func TestNextLineStays(t *testing.T) {
	t.Parallel()
	for line, rest := range map[string]string{
		"GET /b HTTP/1.1\r\n":        "Host: x\r\n\r\n",
		"GET /b HTTP/1.1\nHost: x\n": "\n",
		"GET /b HTTP":                "/1.1\r\nHost: x\r\n\r\n",
	} {
		r := newRelay(t, "tcp")
		a := r.start(describe())
		c := dial(t, r.ln.Addr())
		begin := "GET /a HTTP/1.1\r\nHost: x\r\n\r\n" + line
		c.send(begin)
		c.expect(answered("GET", "/a"), false)
		a.waits(begin)
		if a.waitsForRequest() {
			t.Errorf("%q: what the server holds seems to be known", line)
		}
		_, b := r.next()
		a.poke()
		c.send(rest)
		c.expect(answered("GET", "/b"), false)
		hasMoved(a, b)
		c.get("/c")
		c.expect(answered("GET", "/c"), false)
	}
}

// Up to three bytes of a next request that came with the one before go along.
func TestHalfLineMoves(t *testing.T) {
	t.Parallel()
	for _, half := range []string{"", "G", "GE", "GET"} {
		r := newRelay(t, "tcp")
		a := r.start(describe())
		c := dial(t, r.ln.Addr())
		begin := "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n" + half
		c.send(begin)
		c.expect(`POST /a HTTP/1.1 x "" <nil> Content-Length: ["0"]`, false)
		a.waits(begin)
		hasMoved(r.next())
		c.send(strings.TrimPrefix("GET /b HTTP/1.1\r\nHost: x\r\n\r\n", half))
		c.expect(answered("GET", "/b"), false)
	}
}

// A new connection's header that comes in many segments goes along, from process to
// process, each of which has its server read it from the beginning.
func TestHeaderInSegmentsMoves(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := r.start(describe())
	c := dial(t, r.ln.Addr())
	until(t, "it is accepted", func() bool { return a.Served() == 1 })
	for _, s := range []string{"GET /a HT", "TP/1.1\r\nHo", "st: x\r\n", "X: 1\r", "\nY: 2", "\r\n\r"} {
		c.send(s)
		r.settled()
		if strings.HasPrefix(s, "TP") {
			continue // two segments in one process
		}
		hasMoved(r.next())
	}
	c.send("\n")
	c.expect(answered("GET", "/a")+` X: ["1"] Y: ["2"]`, false)
}

// While a request is being answered, net/http reads on, to notice a client that goes.
// A drain does not disturb that, and no handler is told that its client has gone.
func TestBackgroundReadStays(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	s := newSite()
	a := r.start(s)
	c := dial(t, r.ln.Addr())
	c.get("/slow") // answers nothing if its context is done
	<-s.entered
	until(t, "the server reads", func() bool { conn := a.only(); conn.mu.Lock(); defer conn.mu.Unlock(); return conn.reading })
	b := r.start(newSite())
	a.retire()
	if a.only().poke() != nil {
		t.Error("it was poked")
	}
	conn := a.only()
	conn.mu.Lock()
	poked := conn.pokeAnyway() // before the request had been read, say
	conn.mu.Unlock()
	<-poked
	if _, out := a.Moved(); out != 0 || a.only().phase.Load() != busy {
		t.Error("it has moved while it was being answered")
	}
	s.release <- struct{}{}
	c.expect("slow", false)
	hasMoved(a, b)
	// Here, too, it is a client that has gone which ends a context, and nothing else.
	c.get("/")
	c.expect("hello", false)
}

// pokeAnyway is poke without a look at whether it should. The caller holds mu.
func (c *conn) pokeAnyway() <-chan struct{} {
	c.poked = make(chan struct{})
	_ = c.Conn.SetReadDeadline(past)
	return c.poked
}

// A poke that comes when bytes were read already is undone before the server gets them:
// it waits for the rest of them as long as it likes.
func TestLatePoke(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := r.start(describe())
	c := dial(t, r.ln.Addr())
	until(t, "it is accepted", func() bool { return a.Served() == 1 })
	// net/http sets no deadline between these reads.
	for _, s := range []string{"POST /a HT", "TP/1.1\r\nHost: x\r\n", "Content-Length: 5\r\n\r\n", "123"} {
		r.settled()
		conn := a.only()
		conn.mu.Lock()
		c.send(s)
		until(t, "it was read", func() bool { return !readable(conn.Conn) })
		poked := conn.pokeAnyway()
		conn.mu.Unlock()
		<-poked
	}
	r.settled()
	c.send("45")
	c.expect(`POST /a HTTP/1.1 x "12345" <nil> Content-Length: ["5"]`, false)
}

// A server that speaks HTTP/2 in plaintext looks for it in what a new connection sends
// first. A connection of HTTP/1 moves from it like others, and one that has not said yet
// which it is may become either.
func TestPlaintextHTTP2Server(t *testing.T) {
	t.Parallel()
	const (
		preface  = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
		settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	)
	begin := func(t *testing.T) (*relay, *client) {
		r := newRelay(t, "tcp")
		r.setup = func(srv *http.Server) {
			srv.Protocols = new(http.Protocols)
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
		}
		a := r.start(describe())
		c := dial(t, r.ln.Addr())
		until(t, "it is accepted", func() bool { return a.Served() == 1 })
		r.settled()
		return r, c
	}
	t.Run("new", func(t *testing.T) {
		t.Parallel()
		r, c := begin(t)
		hasMoved(r.next())
		c.get("/a")
		c.expect(answered("GET", "/a"), false)
	})
	t.Run("idle", func(t *testing.T) {
		t.Parallel()
		r, c := begin(t)
		c.get("/a")
		c.expect(answered("GET", "/a"), false)
		r.settled()
		hasMoved(r.next())
		c.get("/b")
		c.expect(answered("GET", "/b"), false)
	})
	for _, n := range []int{1, 4, 13, 14, 15, 20} {
		t.Run(fmt.Sprint("header cut at ", n), func(t *testing.T) {
			t.Parallel()
			r, c := begin(t)
			const request = "GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
			c.send(request[:n])
			r.settled()
			hasMoved(r.next())
			c.send(request[n:])
			c.expect(answered("GET", "/a"), false)
		})
	}
	for _, n := range []int{1, 4, 13, 14, 20} {
		t.Run(fmt.Sprint("preface cut at ", n), func(t *testing.T) {
			t.Parallel()
			r, c := begin(t)
			c.send(preface[:n])
			r.settled()
			a, b := r.next()
			if n < len("PRI * HTTP/2.0") {
				hasMoved(a, b)
			} else {
				until(t, "it waits for no move", func() bool { return !a.stays(a.only()) })
			}
			c.send(preface[n:] + settings)
			head := make([]byte, 4)
			if _, err := io.ReadFull(c.r, head); err != nil || head[3] != 4 {
				t.Errorf("no SETTINGS: %q, %v", head, err)
			}
			c.Close()
		})
	}
}

// Line ends after a POST are forgiven wherever the next request is read, but no more of
// them than net/http does.
func TestStrayLineEndMoves(t *testing.T) {
	t.Parallel()
	const post = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1"
	for _, test := range []struct {
		pieces   []string // with a move after each
		forgiven bool
	}{
		{[]string{"", "\r\n"}, true},
		{[]string{"\r", "\n"}, true},
		{[]string{"\r\n", ""}, true},
		{[]string{"", "\r\n\r\n"}, true},
		{[]string{"\r\n\r", "\n"}, true},
		{[]string{"\r\n", "\r\n", ""}, true},
		{[]string{"\r\n", "\r\n", "", "\n"}, false},
		{[]string{"", "\r\n\r\n", "\n"}, false},
	} {
		r := newRelay(t, "tcp")
		r.start(describe())
		c := dial(t, r.ln.Addr())
		c.send(post)
		c.answer()
		r.settled()
		for _, s := range test.pieces {
			c.send(s)
			r.settled()
			hasMoved(r.next())
		}
		c.get("/b")
		if test.forgiven {
			c.expect(answered("GET", "/b"), false)
		} else if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 400 {
			t.Errorf("%q: %v, %v", test.pieces, resp, err)
		}
	}
	// After a GET they are not.
	r := newRelay(t, "tcp")
	a := r.start(describe())
	c := dial(t, r.ln.Addr())
	c.send(post)
	c.answer()
	c.get("/b")
	c.answer()
	a.waits("\r\n\r\n")
	hasMoved(r.next())
	c.send("\r\nGET /c HTTP/1.1\r\nHost: x\r\n\r\n")
	if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != 400 {
		t.Errorf("after a GET: %v, %v", resp, err)
	}
}

// A client that resets its connection while that is queued is gone. Nobody is told, and
// others are served.
func TestResetInQueue(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		r := newRelay(t, network)
		gone, stays := r.queued(), r.queued()
		gone.send("GET /b HTTP/1.1\r\nHost: x\r\n\r\n")
		if tcp, ok := gone.Conn.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		gone.Close()
		stays.get("/c")
		h := describe()
		b := r.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.RemoteAddr == "" && network == "tcp" {
				t.Error("the client has no address")
			}
			h.ServeHTTP(w, r)
		}))
		stays.expect(answered("GET", "/c"), false)
		until(t, "only one is left", func() bool { open, _ := b.Active(); return open == 1 })
		if in, _ := b.Moved(); in != 1 && network == "tcp" {
			t.Errorf("%s: %d moved in", network, in)
		}
	}
}

// A server's limit of a header is the same after a move, and what is within it moves.
func TestMaxHeaderBytesMoves(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		size, cut int
		status    int
	}{
		{3000, 2500, 200},
		{4000, 14, 200},
		{6000, 4000, 431}, // 4097 are allowed: net/http adds 4096
	} {
		r := newRelay(t, "tcp")
		r.setup = func(srv *http.Server) { srv.MaxHeaderBytes = 1 }
		a := r.start(describe())
		c := dial(t, r.ln.Addr())
		until(t, "it is accepted", func() bool { return a.Served() == 1 })
		request := "GET /a HTTP/1.1\r\nHost: x\r\nX: "
		request += strings.Repeat("x", test.size-len(request)-4) + "\r\n\r\n"
		c.send(request[:test.cut])
		r.settled()
		_, b := r.next()
		hasMoved(a, b)
		c.send(request[test.cut:])
		if resp, err := http.ReadResponse(c.r, nil); err != nil || resp.StatusCode != test.status {
			t.Errorf("%d bytes: %v, %v", test.size, resp, err)
		}
	}
}

// A server with time limits is understood like others, and they hold where a connection
// comes to: a request has the time of a request, not what was left of the idle time.
func TestTimeLimitsMove(t *testing.T) {
	t.Parallel()
	for name, limits := range map[string]*http.Server{
		"none":              {},
		"IdleTimeout":       {IdleTimeout: time.Minute},
		"ReadTimeout":       {ReadTimeout: time.Minute},
		"ReadHeaderTimeout": {ReadHeaderTimeout: time.Minute, WriteTimeout: time.Minute},
		"all":               {ReadHeaderTimeout: time.Minute, ReadTimeout: time.Hour, IdleTimeout: 2 * time.Hour},
	} {
		r := newRelay(t, "tcp")
		r.setup = func(srv *http.Server) {
			srv.ReadTimeout, srv.ReadHeaderTimeout = limits.ReadTimeout, limits.ReadHeaderTimeout
			srv.WriteTimeout, srv.IdleTimeout = limits.WriteTimeout, limits.IdleTimeout
		}
		a := r.start(describe())
		c := dial(t, r.ln.Addr())
		c.get("/a")
		c.expect(answered("GET", "/a"), false)
		a.waits("")
		want := limits.ReadHeaderTimeout
		if want == 0 {
			want = limits.ReadTimeout
		}
		for _, s := range []string{"POST /b", " HTTP/1.1\r\n"} {
			// What it is moved with is the idle time, and then that of a header.
			before, now := r.next()
			hasMoved(before, now)
			c.send(s)
			r.settled()
			until(t, "the server has it", func() bool { return now.only().phase.Load() == busy && len(now.only().pre) == 0 })
			r.settled()
			conn := now.only()
			conn.mu.Lock()
			is := conn.deadline
			conn.mu.Unlock()
			if is.IsZero() != (want == 0) || want > 0 && time.Until(is) > want {
				t.Errorf("%s: the header has until %v, want %v", name, is, want)
			}
		}
		c.send("Host: x\r\nContent-Length: 5\r\n\r\n")
		r.settled()
		c.send("12345")
		c.expect(`POST /b HTTP/1.1 x "12345" <nil> Content-Length: ["5"]`, false)
		r.settled()
		hasMoved(r.next())
		c.get("/c")
		c.expect(answered("GET", "/c"), false)
	}
}

// A server's hooks see a connection that moves as one that ends here, and a new one
// there, from the same client and of the same listener. Nothing is logged.
func TestHooksMove(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	type key struct{}
	var mu sync.Mutex
	var states [][]http.ConnState // of each generation
	var client atomic.Value
	logged := &failing{t}
	r.setup = func(srv *http.Server) {
		mu.Lock()
		i := len(states)
		states = append(states, nil)
		mu.Unlock()
		srv.ErrorLog = log.New(logged, "", 0)
		srv.ConnState = func(nc net.Conn, s http.ConnState) {
			mu.Lock()
			defer mu.Unlock()
			states[i] = append(states[i], s)
			if got := nc.RemoteAddr().String(); got != client.Load() {
				t.Errorf("ConnState: %s, not %s", got, client.Load())
			}
		}
		srv.BaseContext = func(ln net.Listener) context.Context {
			if ln.Addr().String() != r.ln.Addr().String() {
				t.Errorf("BaseContext: %s", ln.Addr())
			}
			return context.WithValue(context.Background(), key{}, "base")
		}
		srv.ConnContext = func(ctx context.Context, nc net.Conn) context.Context {
			if nc.RemoteAddr().String() != client.Load() || nc.LocalAddr().String() != r.ln.Addr().String() || ctx.Value(key{}) != "base" {
				t.Errorf("ConnContext: %s, %s, %v", nc.RemoteAddr(), nc.LocalAddr(), ctx)
			}
			return context.WithValue(ctx, key{}, i)
		}
	}
	handler := func(i int) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			ctx := req.Context()
			if ctx.Value(key{}) != i || ctx.Value(http.LocalAddrContextKey).(net.Addr).String() != r.ln.Addr().String() || req.RemoteAddr != client.Load() {
				t.Errorf("request of %s in %v, not in generation %d", req.RemoteAddr, ctx, i)
			}
		})
	}
	a := r.start(handler(0))
	nc := dialFrom(t, r.ln.Addr(), func(addr string) { client.Store(addr) })
	ask := func() {
		nc.get("/")
		nc.expect("", false)
	}
	ask()
	for i := range 3 {
		r.settled()
		b := r.start(handler(i + 1))
		a.retire()
		hasMoved(a, b)
		ask()
		ask()
		a = b
	}
	r.settled()
	a.Drain(0) // takes, and so keeps what it has for a while
	nc.Close()
	a.drained(1, 0, 0)
	until(t, "the servers know of the end", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return !slices.ContainsFunc(states, func(s []http.ConnState) bool { return !slices.Contains(s, http.StateClosed) })
	})
	mu.Lock()
	defer mu.Unlock()
	for i, got := range states {
		want := []http.ConnState{http.StateNew, http.StateActive, http.StateIdle}
		if i > 0 {
			want = append(want, http.StateActive, http.StateIdle)
		}
		if want = append(want, http.StateClosed); !slices.Equal(got, want) {
			t.Errorf("generation %d: %v, want %v", i, got, want)
		}
	}
}

// failing is a log that must stay empty.
type failing struct{ t *testing.T }

func (f *failing) Write(b []byte) (int, error) {
	f.t.Errorf("logged: %s", b)
	return len(b), nil
}

// dialFrom is dial, but the client's address is told before it connects.
func dialFrom(t *testing.T, addr net.Addr, tell func(string)) *client {
	t.Helper()
	d := net.Dialer{Control: func(network, address string, raw syscall.RawConn) (err error) {
		cerr := raw.Control(func(fd uintptr) {
			if err = unix.Bind(int(fd), &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
				return
			}
			var sa unix.Sockaddr
			if sa, err = unix.Getsockname(int(fd)); err == nil {
				tell(fmt.Sprintf("127.0.0.1:%d", sa.(*unix.SockaddrInet4).Port))
			}
		})
		if err == nil {
			err = cerr
		}
		return err
	}}
	nc, err := d.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}
