package drain

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/moving"
)

// relay is a service in several generations, as processes have it: a socket and a
// queue, which each has copies of.
type relay struct {
	t     testing.TB
	ln    net.Listener
	pair  [2]int
	conf  Config
	setup func(*http.Server) // of each generation's server
	gens  []*running
}

func newRelay(t testing.TB, network string) *relay {
	t.Helper()
	r := &relay{t: t}
	var err error
	if network == "tcp6" {
		if r.ln, err = net.Listen(network, "[::1]:0"); err != nil {
			t.Skip("no IPv6: ", err)
		}
	} else {
		r.ln = listen(t, network)
	}
	t.Cleanup(func() { r.ln.Close() })
	if r.pair[0], r.pair[1], err = moving.Pair(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(r.pair[0]); unix.Close(r.pair[1]) })
	return r
}

func (r *relay) queue() *Queue {
	r.t.Helper()
	q, err := moving.Open(r.pair[0], r.pair[1])
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(q.Close)
	return q
}

// mirror answers alike in all generations, and says in who which one it was.
func mirror(who *[]string, name string) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*who = append(*who, name)
		w.Header().Set("Date", "today")
		if r.URL.Path == "/early" { // answers before it has read
			io.WriteString(w, "early")
			return
		}
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %s %s %q %v %s", r.Method, r.URL, r.Proto, b, err, r.RemoteAddr)
	})
}

// start starts a generation that takes.
func (r *relay) start(h http.Handler) *running {
	r.t.Helper()
	srv := &http.Server{Handler: h}
	if r.setup != nil {
		r.setup(srv)
	}
	cfg := r.conf
	cfg.Queue = r.queue()
	g := serve(r.t, srv, hold(r.t, r.ln), cfg)
	g.Move(Take)
	r.gens = append(r.gens, g)
	return g
}

// retire drains a generation whose connections go to others.
func (g *running) retire() {
	g.Move(Give)
	g.Drain(time.Minute)
}

// waits waits until the only connection's server has read what was sent and wants more,
// or has ended.
func (g *running) waits(sent string) {
	g.t.Helper()
	until(g.t, "the server waits", func() bool {
		for _, c := range g.open() {
			c.mu.Lock()
			waits := c.reading && bytes.HasSuffix(c.held.tail[:], []byte(sent[max(0, len(sent)-3):]))
			c.mu.Unlock()
			if !waits || readable(c.Conn) {
				return false
			}
		}
		return true
	})
}

// all reads what the server has sent until the end.
func all(t testing.TB, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Errorf("read %q, %v", b, err)
	}
	return string(b)
}

var requests = map[string]string{
	"GET":       "GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
	"bare":      "GET /a HTTP/1.1\nHost: x\n\n",
	"HEAD":      "HEAD /a HTTP/1.1\r\nHost: x\r\n\r\n",
	"POST":      "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345",
	"stray":     "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"chunked":   "POST /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n",
	"pipeline":  "GET /a HTTP/1.1\r\nHost: x\r\n\r\nGET /b HTTP/1.1\r\nHost: x\r\n\r\nHEAD /c HTTP/1.1\r\nHost: x\r\n\r\n",
	"mixed":     "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n\r\nabcGET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"early":     "POST /early HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n12345GET /b HTTP/1.1\r\nHost: x\r\n\r\n",
	"malformed": "GET /a HTTP/1.1\r\nHost: x\r\n\r\nnonsense\n", // and the server closes
	"1.0":       "GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	"continue":  "POST /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n12345",
	"stray GET": "GET /a HTTP/1.1\r\nHost: x\r\n\r\n\r\nXY", // not forgiven
}

// last is a request after which the server closes.
const last = "GET /last HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"

// A connection that is moved after any byte of its requests gets exactly the answers
// that an undisturbed server gives.
func TestCutAnywhere(t *testing.T) {
	t.Parallel()
	for name, request := range requests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name != "malformed" && name != "stray GET" {
				request += last
			}
			for _, network := range []string{"tcp", "unix"} {
				plain := newRelay(t, network)
				var who []string
				total := 0 // of those that waited for a request, or for its rest
				p := plain.start(mirror(&who, "plain"))
				for cut := range len(request) {
					// Undisturbed, in the same two pieces.
					c := dial(t, plain.ln.Addr())
					c.send(request[:cut])
					p.waits(request[:cut])
					c.send(request[cut:])
					want := strip(all(t, c), c)

					var moved []string
					r := newRelay(t, network)
					a := r.start(mirror(&moved, "a"))
					c = dial(t, r.ln.Addr())
					until(t, "it is accepted", func() bool { return a.Served() == 1 })
					c.send(request[:cut])
					a.waits(request[:cut])
					b := r.start(mirror(&moved, "b"))
					conn := a.open()[0]
					conn.mu.Lock()
					waits := conn.held.known
					conn.mu.Unlock()
					a.retire()
					if waits {
						<-a.Done()
						total++
					}
					c.send(request[cut:])
					got := strip(all(t, c), c)
					if got != want {
						t.Fatalf("cut after %q: moved: answers\n%q\nundisturbed:\n%q", request[:cut], got, want)
					}
					<-a.Done()
					if rep := a.Report(); rep.ClosedIdle+rep.Cut != 0 {
						t.Errorf("cut after %q: %+v", request[:cut], rep)
					}
					in, _ := b.Moved()
					// Who has just stopped taking may get its own once more.
					if back, out := a.Moved(); in != out-back || waits && in != 1 {
						t.Errorf("cut after %q: %d moved out, %d in", request[:cut], out, in)
					}
					b.Stop()
					c.Close()
				}
				if total < 10 {
					t.Errorf("only %d connections could move", total)
				}
			}
		})
	}
}

// strip takes out what may differ: the client's own address.
func strip(answers string, c *client) string {
	return strings.ReplaceAll(answers, c.LocalAddr().String(), "CLIENT")
}

// An idle connection goes over many generations, and the client sees nothing.
func TestIdleMoves(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "tcp4", "tcp6", "unix"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			r := newRelay(t, network)
			var who []string
			g := r.start(mirror(&who, "0"))
			c := dial(t, r.ln.Addr())
			for i := range 10 {
				for range 2 {
					c.get("/")
					c.expect(fmt.Sprintf("GET / HTTP/1.1 %q <nil> %s", "", c.LocalAddr()), false)
					if got := who[len(who)-1]; got != fmt.Sprint(i) {
						t.Errorf("generation %s answered, not %d", got, i)
					}
				}
				g.waits("")
				before, _ := g.Moved()
				next := r.start(mirror(&who, fmt.Sprint(i+1)))
				g.retire()
				rep := g.drained(0, 0, 0)
				// Who has just stopped taking may get its own once more.
				if in, _ := g.Moved(); rep.Moved-(in-before) != 1 {
					t.Errorf("%+v, and %d came back", rep, in-before)
				}
				g = next
			}
			// And once more without a request between: it is parked then.
			next := r.start(mirror(&who, "last"))
			g.retire()
			g.drained(0, 0, 0)
			c.get("/")
			c.answer()
			if got := who[len(who)-1]; got != "last" {
				t.Errorf("generation %s answered", got)
			}
			next.Drain(0)
			c.Close()
			next.drained(1, 0, 0)
		})
	}
}

// What waits for a request is known in the version of net/http that this is built
// with: otherwise nothing would move.
func TestKnown(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	var who []string
	a := r.start(mirror(&who, "a"))
	c := dial(t, r.ln.Addr())
	for range 3 {
		until(t, "it waits and could move", func() bool {
			for _, c := range a.open() {
				c.mu.Lock()
				ok := c.reading && c.held.known && len(c.held.bytes) == 0
				c.mu.Unlock()
				return ok
			}
			return false
		})
		c.get("/")
		c.answer()
	}
}

// An answer is finished by whoever has begun it; then the connection moves.
func TestInFlightMoves(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	s := newSite()
	a := r.start(s)
	c := dial(t, r.ln.Addr())
	c.get("/slow")
	<-s.entered
	b := r.start(newSite())
	a.retire()
	s.release <- struct{}{}
	c.expect("slow", false)
	a.drained(0, 0, 0)
	c.get("/")
	c.expect("hello", false)
	if in, _ := b.Moved(); in != 1 {
		t.Errorf("%d moved in", in)
	}
}

// A time without requests goes on where it was, and is not that of a new connection.
func TestIdleTimeMoves(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	r.setup = func(srv *http.Server) { srv.IdleTimeout, srv.ReadHeaderTimeout = time.Hour, time.Minute }
	a := r.start(newSite())
	c := dial(t, r.ln.Addr())
	c.get("/")
	c.expect("hello", false)
	var was time.Time
	until(t, "it is idle", func() bool {
		c := a.open()[0]
		c.mu.Lock()
		defer c.mu.Unlock()
		was = c.deadline
		return c.reading && c.held.known
	})
	b := r.start(newSite())
	a.retire()
	a.drained(0, 0, 0)
	until(t, "it has come", func() bool { in, _ := b.Moved(); return in == 1 })
	b.waits("")
	if is := b.open()[0].deadline; is.Sub(was).Abs() > time.Second {
		t.Errorf("it would be closed at %v, not %v", is, was)
	}
	// When the time is over, it is closed as the server would have done.
	conn := b.open()[0]
	conn.mu.Lock()
	conn.deadline = time.Now()
	_ = conn.Conn.SetReadDeadline(conn.deadline)
	conn.mu.Unlock()
	c.closed()
}

// What is not a bare socket, or has been taken over by a handler, does not move.
func TestStays(t *testing.T) {
	t.Parallel()
	t.Run("wrapped listener", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		srv := &http.Server{Handler: newSite()}
		a := serve(t, srv, wrappedListener{hold(t, r.ln)}, Config{Queue: r.queue(), LameDuck: time.Millisecond})
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		a.retire()
		c.closed()
		a.drained(0, 1, 0)
	})
	t.Run("what Wrap makes, of bare connections", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		a := serve(t, &http.Server{Handler: newSite()}, hold(t, r.ln), Config{
			Queue: r.queue(), LameDuck: time.Millisecond, Wrap: func(ln net.Listener) net.Listener { return wrappedListener{ln} },
		})
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("hello", false)
		a.retire()
		c.closed()
		a.drained(0, 1, 0)
	})
	t.Run("wrapped connection", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		r.conf.LameDuck = time.Millisecond
		r.setup = func(srv *http.Server) {
			srv.Protocols = new(http.Protocols)
			srv.Protocols.SetHTTP1(true)
			srv.Protocols.SetUnencryptedHTTP2(true)
		}
		a := r.start(newSite())
		tr := &http.Transport{Protocols: new(http.Protocols)}
		tr.Protocols.SetUnencryptedHTTP2(true)
		defer tr.CloseIdleConnections()
		resp, err := tr.RoundTrip(must(http.NewRequest("GET", "http://"+r.ln.Addr().String()+"/", nil)))
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		r.start(newSite())
		a.retire()
		<-a.Done()
		if _, out := a.Moved(); out != 0 {
			t.Errorf("%d moved", out)
		}
	})
	t.Run("pinned", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		r.conf.LameDuck = time.Millisecond
		a := r.start(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if !Pin(r) {
				t.Error("it could not move anyway")
			}
			io.WriteString(w, "pinned")
		}))
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.expect("pinned", false)
		r.start(newSite())
		a.retire()
		c.closed()
		a.drained(0, 1, 0)
	})
	t.Run("hijacked", func(t *testing.T) {
		t.Parallel()
		r := newRelay(t, "tcp")
		got := make(chan string)
		a := r.start(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
			nc, rw, _ := w.(http.Hijacker).Hijack()
			defer nc.Close()
			line, _ := rw.ReadString('\n')
			got <- line
			line, _ = rw.ReadString('\n')
			got <- line
		}))
		c := dial(t, r.ln.Addr())
		c.get("/")
		c.send("one\n")
		if line := <-got; line != "one\n" {
			t.Errorf("%q", line)
		}
		r.start(newSite())
		a.retire()
		c.send("two\n")
		if line := <-got; line != "two\n" {
			t.Errorf("%q", line)
		}
		a.drained(1, 0, 0)
	})
}

type wrappedListener struct{ net.Listener }

// A connection of another listener is refused, as is what is no connection.
func TestForeignConnection(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	a := must(New(&http.Server{Handler: newSite()}, hold(t, r.ln), quiet(Config{Queue: r.queue()})))
	a.Hold() // this test accepts
	served := make(chan error, 1)
	go func() { served <- a.Serve() }()
	defer func() { a.Drain(0); <-served }()
	<-a.Serving()
	a.Move(Take)
	q := r.queue()
	other := listen(t, "tcp")
	defer other.Close()
	stranger := dial(t, other.Addr())
	accepted := must(other.Accept())
	send := func(c any) {
		control(t, c, func(fd int) error { return q.Send(fd, moving.Message{}) })
	}
	send(accepted)
	accepted.Close()
	stranger.closed()
	send(other)
	u := must(net.ListenPacket("udp", "127.0.0.1:0"))
	defer u.Close()
	send(u)
	// One whose client has gone.
	c := dial(t, r.ln.Addr())
	gone := must(r.ln.Accept())
	_ = c.Conn.(*net.TCPConn).SetLinger(0)
	c.Close()
	until(t, "the client has gone", func() bool { return readable(gone) || reset(gone) })
	send(gone)
	gone.Close()
	until(t, "the queue is empty", func() bool { return !q.Pending() })
	if in, _ := a.Moved(); in != 0 {
		t.Errorf("%d moved in", in)
	}
}

// reset tells whether the connection was.
func reset(nc net.Conn) bool {
	_ = nc.SetReadDeadline(time.Now().Add(time.Millisecond))
	_, err := nc.Read(make([]byte, 1))
	return err != nil && !timedOut(err)
}

// Socket options are as the server has set them.
func TestOptionsMove(t *testing.T) {
	t.Parallel()
	r := newRelay(t, "tcp")
	want := options{0, 1, 77, 7, 3}
	a := r.start(newSite())
	c := dial(t, r.ln.Addr())
	c.get("/")
	c.expect("hello", false)
	control(t, a.open()[0].Conn, func(fd int) error { want.restore(fd); return nil })
	a.waits("")
	b := r.start(newSite())
	a.retire()
	a.drained(0, 0, 0)
	until(t, "it has come", func() bool { in, _ := b.Moved(); return in == 1 })
	control(t, b.open()[0].Conn, func(fd int) error {
		if got := readOptions(fd); got != want {
			t.Errorf("options %v, want %v", got, want)
		}
		return nil
	})
}
