package load

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// serveKept answers well on every connection, and then does what after does, which is
// told the request's number on its connection, from 1. It closes the connection if
// after returns false.
func serveKept(t testing.TB, after func(c *net.TCPConn, nth int) bool) (addr string) {
	ln := listen(t)
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				br := bufio.NewReader(c)
				for nth := 1; ; nth++ {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					io.WriteString(c, ok(req))
					if !after(c.(*net.TCPConn), nth) {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// keepAlive is a load of three clients.
func keepAlive(addr string) Config {
	return Config{Addr: addr, Clients: map[Kind]int{KeepAlive: 3}, Rate: 100}
}

func TestKeepAlive(t *testing.T) {
	t.Parallel()
	var conns, closing atomic.Int32
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Close {
			closing.Add(1)
		}
		right{}.ServeHTTP(w, r)
	}))
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Start()
	t.Cleanup(srv.Close)
	cfg := keepAlive(srv.Listener.Addr().String())
	cfg.MaxRequests = 60
	r := run(t, cfg)
	if err := r.Check(); err != nil {
		t.Error(err)
	}
	if r.OK != 60 || r.ByKind[KeepAlive].OK != 60 || conns.Load() != 3 || closing.Load() != 0 {
		t.Errorf("%d connections for 3 clients, %d requests that close them:\n%v", conns.Load(), closing.Load(), r)
	}
	if !strings.Contains(r.String(), "keepalive") {
		t.Errorf("the table lacks the kind:\n%v", r)
	}
}

// The end of an idle connection is seen without another request, whatever it looks
// like, and is no failure of one.
func TestClosedIdle(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		before func(c *net.TCPConn)
		detail string
	}{
		"closed": {func(*net.TCPConn) {}, "EOF"},
		"reset":  {resets, "connection reset"},
		"408":    {func(c *net.TCPConn) { io.WriteString(c, "HTTP/1.1 408 Request Timeout\r\n\r\n") }, "408 Request"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			answered := make(chan struct{})
			cfg := keepAlive(serveKept(t, func(c *net.TCPConn, _ int) bool {
				<-answered
				tc.before(c)
				return false
			}))
			cfg.Rate = 0.002 // the second request is far away
			l := mustStart(t, cfg)
			waitFor(t, l, "the first answer", func(r Result) bool { return r.OK > 0 })
			close(answered)
			waitFor(t, l, "the end of the first connection", func(r Result) bool { return r.ClosedIdle > 0 })
			r := l.Stop()
			if r.Failures.Total() != 0 || r.Started != 1 || r.ClosedIdle != 1 || len(r.Errors) != 1 {
				t.Fatalf("want one closed idle, and no failure:\n%v", r)
			}
			f := r.Errors[0]
			if f.Class != ClosedIdle || f.Kind != KeepAlive || f.Remote != cfg.Addr || f.Local == "" || f.ID == "" ||
				f.When.Before(f.Began) || f.Began.Before(f.Connected) || !strings.Contains(f.Detail, tc.detail) {
				t.Errorf("failure lacks something: %+v", f)
			}
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), "1 connections were closed while idle") ||
				!strings.Contains(err.Error(), tc.detail) {
				t.Errorf("Check: %v", err)
			}
		})
	}
}

// A server that now and then closes, or drops, what is idle does not pass, unless that
// is allowed. Its clients connect anew.
func TestClosesIdleAtTimes(t *testing.T) {
	t.Parallel()
	cfg := keepAlive(serveKept(t, func(c *net.TCPConn, nth int) bool {
		if nth == 4 {
			resets(c)
		}
		return nth < 4
	}))
	cfg.Rate = 50
	l := mustStart(t, cfg)
	waitFor(t, l, "closed connections", func(r Result) bool { return r.ClosedIdle >= 6 })
	r := l.Stop()
	if err := r.Accounted(); err != nil || r.OK < 24 || r.ClosedIdle+r.Failures.Total() > r.OK/4 {
		t.Errorf("every fourth answer ends a connection: %v\n%v", err, r)
	}
	if r.Check() == nil {
		t.Error("a server that closes idle connections passes")
	}
	closed := map[string]bool{}
	for _, f := range r.log {
		closed[f.Local] = true
	}
	for name, x := range map[string]Result{"ExceptIdle": r.ExceptIdle(), "Except": r.Except(closed)} {
		if x.ClosedIdle != 0 || x.Accounted() != nil || x.Started != r.Started || name == "Except" && x.Check() != nil {
			t.Errorf("%s:\n%v", name, x)
		}
	}
	if r.ClosedIdle == 0 {
		t.Error("the receiver has changed")
	}
}

// What happens to a request on a kept connection has its class, and the next one is
// made on another connection.
func TestKeptConnectionFails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bad    behaviour // to every third request on a connection
		want   Class
		detail string
	}{
		"EOF":          {func(*net.TCPConn, *http.Request) {}, EOF, "waiting for the answer"},
		"RST":          {func(c *net.TCPConn, _ *http.Request) { resets(c) }, Reset, "waiting for the answer"},
		"cut":          {writes(func(r *http.Request) string { return ok(r)[:20] }), Cut, "header"},
		"twice":        {writes(func(r *http.Request) string { return ok(r) + ok(r) }), Duplicated, "after the end"},
		"cross-talk":   {writes(func(r *http.Request) string { return answer("x", "Content-Length: 4", "fine") }), CrossTalk, "request x"},
		"unavailable":  {writes(func(*http.Request) string { return "HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n" }), Status, "503"},
		"other length": {writes(func(r *http.Request) string { return answer(id(r), "Content-Length: 5", "fine") }), Cut, "after 4 bytes"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			serveRaw(t, ln, nil, func(c *net.TCPConn, req *http.Request) {
				for nth, br := 1, bufio.NewReader(c); ; nth++ {
					if nth == 3 {
						tc.bad(c, req)
						return
					}
					io.WriteString(c, ok(req))
					var err error
					if req, err = http.ReadRequest(br); err != nil {
						return
					}
				}
			})
			cfg := keepAlive(ln.Addr().String())
			cfg.Clients, cfg.MaxRequests = map[Kind]int{KeepAlive: 1}, 9
			r := run(t, cfg)
			var want Failures
			want[tc.want] = 3
			if r.Failures != want || r.OK != 6 || r.ClosedIdle != 0 || r.Accounted() != nil {
				t.Fatalf("want %v:\n%v", want, r)
			}
			if err := r.Check(); err == nil || !strings.Contains(err.Error(), tc.detail) {
				t.Errorf("want %q: %v", tc.detail, err)
			}
		})
	}
}

// A good answer that says that its connection will be closed is good, and its connection does
// not stay.
func TestSaysClose(t *testing.T) {
	t.Parallel()
	for name, last := range map[string]func(r *http.Request) string{
		"close":    func(r *http.Request) string { return answer(id(r), "Connection: close\r\nContent-Length: 4", "fine") },
		"HTTP/1.0": func(r *http.Request) string { return strings.Replace(ok(r), "1.1", "1.0", 1) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			serveRaw(t, ln, nil, func(c *net.TCPConn, req *http.Request) {
				br := bufio.NewReader(c)
				for range 2 {
					io.WriteString(c, ok(req))
					var err error
					if req, err = http.ReadRequest(br); err != nil {
						return
					}
				}
				io.WriteString(c, last(req))
			})
			cfg := keepAlive(ln.Addr().String())
			cfg.Clients, cfg.MaxRequests = map[Kind]int{KeepAlive: 1}, 9
			r := run(t, cfg)
			if r.Failures.Total() != 0 || r.OK != 9 || r.ClosedIdle != 3 || r.Accounted() != nil {
				t.Fatalf("want 9 answered and 3 closed:\n%v", r)
			}
			f := r.Errors[0]
			if f.Class != ClosedIdle || !strings.Contains(f.Detail, "will be closed") || f.Nth != 3 || f.ID == "" || f.Local == "" {
				t.Errorf("%+v", f)
			}
		})
	}
}

// A server whose every answer closes its connection answers every request.
func TestServerWithoutKeepAlive(t *testing.T) {
	t.Parallel()
	srv := httptest.NewUnstartedServer(right{})
	srv.Config.SetKeepAlivesEnabled(false)
	srv.Start()
	t.Cleanup(srv.Close)
	cfg := keepAlive(srv.Listener.Addr().String())
	cfg.MaxRequests, cfg.WaitReady = 12, time.Minute
	r := run(t, cfg)
	if err := r.Check(); err == nil || r.OK != 12 || r.ClosedIdle != 12 || r.Failures.Total() != 0 {
		t.Errorf("want 12 that say it:\n%v", r)
	}
}
