package drain

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
)

// h2Transport speaks HTTP/2 in plaintext through pipes.
func h2Transport(ln *pipes, t testing.TB) *http.Transport {
	tr := &http.Transport{Protocols: new(http.Protocols), DialContext: func(context.Context, string, string) (net.Conn, error) {
		return ln.dial(t).Conn, nil
	}}
	tr.Protocols.SetUnencryptedHTTP2(true)
	return tr
}

var registerDefault = sync.OnceFunc(func() {
	http.HandleFunc("/of-the-default-mux", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "default") })
})

func TestHooks(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var states []http.ConnState
	shutdown := make(chan struct{})
	srv := &http.Server{ConnState: func(nc net.Conn, s http.ConnState) {
		mu.Lock()
		defer mu.Unlock()
		states = append(states, s)
	}}
	srv.RegisterOnShutdown(func() { close(shutdown) })
	registerDefault()
	d := serve(t, srv, listen(t, "tcp"), Config{})
	c := dial(t, d.ln.Addr())
	c.get("/of-the-default-mux")
	c.expect("default", false)
	d.Drain(0)
	c.get("/of-the-default-mux")
	c.expect("default", true)
	d.drained(1, 0, 0)
	<-shutdown
	until(t, "StateClosed", func() bool {
		mu.Lock()
		defer mu.Unlock()
		return len(states) == 5 && states[4] == http.StateClosed
	})
}

func TestOneDrainerForEachServer(t *testing.T) {
	srv := new(http.Server)
	if _, err := New(srv, newPipes(), Config{}); err != nil {
		t.Fatal(err)
	}
	if _, err := New(srv, newPipes(), Config{}); err == nil {
		t.Error("two Drainers have one http.Server")
	}
}

// A 101 answer has a Connection header of its own.
func TestUpgradeRequest(t *testing.T) {
	d, err := New(&http.Server{Handler: http.NotFoundHandler()}, newPipes(), quiet(Config{}))
	if err != nil {
		t.Fatal(err)
	}
	d.Drain(0)
	r := httptest.NewRequest("GET", "/", nil)
	for _, want := range []string{"close", ""} {
		w := httptest.NewRecorder()
		d.srv.(*http.Server).Handler.ServeHTTP(w, r)
		if got := w.Header().Get("Connection"); got != want {
			t.Errorf("Connection: %q, want %q", got, want)
		}
		r.Header.Set("Upgrade", "websocket")
	}
}

func TestNoAllocation(t *testing.T) {
	d, err := New(&http.Server{Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})}, newPipes(), Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv := d.srv.(*http.Server)
	r, w := httptest.NewRequest("GET", "/", nil), httptest.NewRecorder()
	_, nc := wrap(d, new(net.TCPConn))
	if n := testing.AllocsPerRun(100, func() {
		srv.ConnState(nc, http.StateActive)
		srv.Handler.ServeHTTP(w, r)
		srv.ConnState(nc, http.StateIdle)
	}); n != 0 {
		t.Errorf("%v allocations a request", n)
	}
}

// What the server gets can do what net/http asks for, and nothing that goes past us.
func TestConnType(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		got := make(chan net.Conn, 1)
		srv := &http.Server{ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			got <- c
			return ctx
		}}
		d := serve(t, srv, listen(t, network), Config{})
		c := dial(t, d.ln.Addr())
		nc := <-got
		if _, ok := nc.(io.ReaderFrom); ok != (network == "tcp") {
			t.Errorf("%s: ReadFrom: %t", network, ok)
		}
		if _, ok := nc.(interface{ CloseWrite() error }); !ok {
			t.Errorf("%s: no CloseWrite", network)
		}
		if _, ok := nc.(io.WriterTo); ok {
			t.Errorf("%s: WriteTo goes past the wrapper", network)
		}
		if real := nc.(interface{ NetConn() net.Conn }).NetConn(); real.RemoteAddr() != nc.RemoteAddr() {
			t.Errorf("%s: NetConn returns %T", network, real)
		}
		c.Close()
	}
}

// sendfile is a connection that counts calls of ReadFrom.
type sendfile struct {
	net.Conn
	calls chan struct{}
}

func (s sendfile) ReadFrom(r io.Reader) (int64, error) {
	s.calls <- struct{}{}
	return io.Copy(s.Conn, r)
}
func (s sendfile) CloseWrite() error { return nil }

func TestReadFromIsUsed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		big := strings.Repeat("x", 100_000)
		calls := make(chan struct{}, 1)
		ln := newPipes()
		ln.accepted = func(c net.Conn) net.Conn { return sendfile{c, calls} }
		serve(t, &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "100000")
			io.Copy(w, struct{ io.Reader }{strings.NewReader(big)})
		})}, ln, Config{})
		c := ln.dial(t)
		c.get("/")
		c.expect(big, false)
		<-calls
	})
}
