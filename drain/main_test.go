package drain

import (
	"bufio"
	"io"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// quiet is a Config for tests.
func quiet(c Config) Config {
	c.Logger = slog.New(slog.DiscardHandler)
	return c
}

// listen opens a socket of the given network.
func listen(t testing.TB, network string) net.Listener {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = t.TempDir() + "/s"
	}
	ln, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return ln
}

// running is a Drainer that serves.
type running struct {
	*Drainer
	t   testing.TB
	ln  net.Listener
	err chan error
}

func serve(t testing.TB, srv Server, ln net.Listener, cfg Config) *running {
	t.Helper()
	d, err := New(srv, ln, quiet(cfg))
	if err != nil {
		t.Fatal(err)
	}
	r := &running{Drainer: d, t: t, ln: ln, err: make(chan error, 1)}
	go func() { r.err <- d.Serve() }()
	t.Cleanup(func() { d.Stop(); <-d.Done() })
	select {
	case <-d.Serving():
	case <-d.Draining(): // the server has failed
	}
	return r
}

// drained waits for the end of the drain and checks the report.
func (r *running) drained(finished, idle, cut int) Report {
	r.t.Helper()
	if err := <-r.err; err != nil {
		r.t.Errorf("Serve: %v", err)
	}
	<-r.Done()
	rep := r.Report()
	if rep.Finished != finished || rep.ClosedIdle != idle || rep.Cut != cut || rep.Took <= 0 {
		r.t.Errorf("report %+v, want %d finished, %d closed idle, %d cut", rep, finished, idle, cut)
	}
	if open, _ := r.Active(); open != 0 {
		r.t.Errorf("%d connections are open", open)
	}
	return rep
}

// until waits for what another goroutine is about to do.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	// On one CPU the poller has its turn only when nobody runs.
	for limit := time.Now().Add(time.Minute); !ok(); time.Sleep(20 * time.Microsecond) {
		if time.Now().After(limit) {
			t.Fatalf("never: %s", what)
		}
	}
}

// client speaks HTTP/1.1 and forgives nothing.
type client struct {
	net.Conn
	t testing.TB
	r *bufio.Reader
}

func newClient(t testing.TB, nc net.Conn) *client {
	t.Cleanup(func() { nc.Close() })
	return &client{Conn: nc, t: t, r: bufio.NewReader(nc)}
}

func dial(t testing.TB, addr net.Addr) *client {
	t.Helper()
	nc, err := net.Dial(addr.Network(), addr.String())
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, nc)
}

func (c *client) send(s string) {
	c.t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		c.t.Errorf("send: %v", err)
	}
}

// get sends a request for a path.
func (c *client) get(path string) {
	c.t.Helper()
	c.send("GET " + path + " HTTP/1.1\r\nHost: x\r\n\r\n")
}

// answer reads an answer: its body, and whether the server will close.
func (c *client) answer() (body string, closes bool) {
	c.t.Helper()
	resp, err := http.ReadResponse(c.r, nil)
	if err != nil {
		c.t.Errorf("answer: %v", err)
		return "", false
	}
	b, err := io.ReadAll(resp.Body)
	resp.Body.Close()
	if err != nil || resp.StatusCode != 200 {
		c.t.Errorf("status %s, body %q, %v", resp.Status, b, err)
	}
	return string(b), resp.Close
}

// expect checks an answer.
func (c *client) expect(body string, closes bool) {
	c.t.Helper()
	if b, cl := c.answer(); b != body || cl != closes {
		c.t.Errorf("answer %q, closes %t, want %q, %t", b, cl, body, closes)
	}
}

// closed waits for the end of the connection.
func (c *client) closed() {
	c.t.Helper()
	if b, err := c.r.ReadByte(); err != io.EOF {
		c.t.Errorf("read %q, %v, want EOF", b, err)
	}
}

// site is the handler of the tests.
type site struct {
	http.ServeMux
	entered chan struct{} // one for each request of /slow
	release chan struct{} // closed or sent to, to let it answer
}

func newSite() *site {
	s := &site{entered: make(chan struct{}, 100), release: make(chan struct{})}
	s.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "hello") })
	s.HandleFunc("/slow", func(w http.ResponseWriter, r *http.Request) {
		s.entered <- struct{}{}
		select {
		case <-s.release:
			io.WriteString(w, "slow")
		case <-r.Context().Done():
		}
	})
	s.HandleFunc("/upload", func(w http.ResponseWriter, r *http.Request) {
		s.entered <- struct{}{}
		b, _ := io.ReadAll(r.Body)
		w.Write(b)
	})
	s.HandleFunc("/hijack", func(w http.ResponseWriter, r *http.Request) {
		nc, rw, err := w.(http.Hijacker).Hijack()
		if err != nil {
			panic(err)
		}
		defer nc.Close()
		s.entered <- struct{}{}
		io.Copy(nc, rw) // an echo until the client ends
	})
	return s
}

// pipes is a listener without a kernel, for the fake time of synctest.
type pipes struct {
	conns    chan net.Conn
	woken    chan struct{}
	closed   chan struct{}
	deadline sync.Once
	closing  sync.Once
	accepted func(net.Conn) net.Conn // if set, makes the connection that Accept returns
}

func newPipes() *pipes {
	return &pipes{conns: make(chan net.Conn), woken: make(chan struct{}), closed: make(chan struct{})}
}

func (p *pipes) Accept() (net.Conn, error) {
	select {
	case c := <-p.conns:
		if p.accepted != nil {
			c = p.accepted(c)
		}
		return c, nil
	case <-p.woken:
		return nil, errDeadline
	case <-p.closed:
		return nil, net.ErrClosed
	}
}

func (p *pipes) Close() error                { p.closing.Do(func() { close(p.closed) }); return nil }
func (p *pipes) Addr() net.Addr              { return pipeAddr{} }
func (p *pipes) SetDeadline(time.Time) error { p.deadline.Do(func() { close(p.woken) }); return nil }

// onlyClose is a listener that can't be woken otherwise.
type onlyClose struct{ net.Listener }

// dial returns a client's end, whose other end was accepted.
func (p *pipes) dial(t testing.TB) *client {
	here, there := net.Pipe()
	p.conns <- there
	return newClient(t, here)
}

type pipeAddr struct{}

func (pipeAddr) Network() string { return "pipe" }
func (pipeAddr) String() string  { return "pipe" }

var errDeadline error = &net.OpError{Op: "accept", Err: timeoutError{}}

type timeoutError struct{}

func (timeoutError) Error() string   { return "deadline" }
func (timeoutError) Timeout() bool   { return true }
func (timeoutError) Temporary() bool { return true }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
