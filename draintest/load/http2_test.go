package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// connKey is for a request's connection.
type connKey struct{}

// http2Server speaks HTTP/2, with TLS if that is to be, and HTTP/1.1.
func http2Server(t testing.TB, secure bool, h http.HandlerFunc) (cfg Config, conns *atomic.Int32) {
	conns = new(atomic.Int32)
	srv := httptest.NewUnstartedServer(h)
	srv.Config.Protocols = new(http.Protocols)
	srv.Config.Protocols.SetHTTP1(true)
	srv.Config.Protocols.SetHTTP2(true)
	srv.Config.Protocols.SetUnencryptedHTTP2(true)
	srv.Config.ErrorLog = quiet
	srv.Config.ConnState = func(_ net.Conn, s http.ConnState) {
		if s == http.StateNew {
			conns.Add(1)
		}
	}
	srv.Config.ConnContext = func(ctx context.Context, c net.Conn) context.Context {
		return context.WithValue(ctx, connKey{}, c)
	}
	if secure {
		srv.EnableHTTP2 = true
		srv.StartTLS()
	} else {
		srv.Start()
	}
	t.Cleanup(srv.Close)
	cfg = quick(srv.Listener.Addr().String())
	cfg.Clients, cfg.Rate = map[Kind]int{HTTP2: 2}, 100
	if secure {
		roots := x509.NewCertPool()
		roots.AddCert(srv.Certificate())
		cfg.TLS = &tls.Config{RootCAs: roots}
	}
	return cfg, conns
}

func TestHTTP2(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"prior knowledge": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var other, now, most atomic.Int32
			cfg, conns := http2Server(t, secure, func(w http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor != 2 || (r.TLS != nil) != secure || r.Header.Get("X-Own") != "1" {
					other.Add(1)
				}
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				right{func() string { return "w" }}.ServeHTTP(w, r)
				now.Add(-1)
			})
			cfg.MaxRequests, cfg.Header = 60, http.Header{"X-Own": {"1"}}
			cfg.Path, cfg.SlowMS = map[Kind]string{HTTP2: "/slow?ms={ms}"}, 100
			r := run(t, cfg)
			if err := r.Check(); err != nil {
				t.Error(err)
			}
			if r.OK != 60 || conns.Load() != 2 || other.Load() != 0 || most.Load() < 3 || r.Workers["w"] != 60 {
				t.Errorf("%d connections for 2 clients, %d requests beside one another, %d other requests\n%v",
					conns.Load(), most.Load(), other.Load(), r)
			}
		})
	}
}

// closes ends the connection of a request, below HTTP.
func closes(r *http.Request, reset bool) {
	c := r.Context().Value(connKey{}).(net.Conn)
	if tc, ok := c.(*net.TCPConn); ok && reset {
		resets(tc)
	}
	c.Close()
}

func TestHTTP2Fails(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		bad    func(w http.ResponseWriter, r *http.Request)
		want   Class
		detail string
	}{
		"RST":          {func(_ http.ResponseWriter, r *http.Request) { closes(r, true) }, Reset, "reset by peer"},
		"EOF":          {func(_ http.ResponseWriter, r *http.Request) { closes(r, false) }, EOF, "waiting for the answer"},
		"stream reset": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Reset, "stream error"},
		"cut in the body": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("X-Request-Id", id(r))
			io.WriteString(w, "fin")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, Cut, "after 3 bytes"},
		"503":     {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, Status, "503"},
		"another": {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("X-Request-Id", "x") }, CrossTalk, "request x"},
		"no id":   {func(http.ResponseWriter, *http.Request) {}, Body, "without X-Request-Id"},
		"nothing": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Timeout, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			cfg, _ := http2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1)%3 == 0 {
					tc.bad(w, r)
					return
				}
				right{}.ServeHTTP(w, r)
			})
			// One at a time, so that none suffers with another.
			cfg.Clients, cfg.MaxInFlight, cfg.MaxRequests = map[Kind]int{HTTP2: 1}, 1, 6
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			r := run(t, cfg)
			var want Failures
			want[tc.want] = 2
			if r.Failures != want || r.OK != 4 || r.ClosedIdle != 0 || r.Accounted() != nil {
				t.Fatalf("want %v:\n%v", want, r)
			}
			f := r.Errors[0]
			if !strings.Contains(f.Detail, tc.detail) || f.Nth != 3 || f.Remote != cfg.Addr || f.Local == "" ||
				!strings.Contains(f.String(), " on its connection, idle for ") {
				t.Errorf("want %q: %+v\n%v", tc.detail, f, f)
			}
		})
	}
}

// Frames of RFC 9113: settings, and what says that stream 1 was not looked at.
const (
	settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	refused  = "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x07"
	goAway   = "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
)

func TestHTTP2NotLookedAt(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		frames string
		want   Class
	}{
		"refused":        {settings + refused, GoneAway},
		"gone":           {settings + goAway, GoneAway},
		"gone by halves": {settings + goAway[:4] + "|" + goAway[4:], GoneAway},
		"HTTP/1.1":       {"HTTP/1.1 400 Bad Request\r\n\r\n", Body},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t)
			serveBytes(t, ln, func(c net.Conn) {
				br := bufio.NewReader(c)
				// The preface, settings, window, then the request.
				for head, kind := make([]byte, 9), byte(0); kind != 1; kind = head[3] {
					if kind == 0 {
						br.Discard(24)
					}
					if _, err := io.ReadFull(br, head); err != nil {
						return
					}
					br.Discard(int(head[1])<<8 | int(head[2]))
				}
				for part := range strings.SplitSeq(tc.frames, "|") {
					io.WriteString(c, part)
				}
				io.Copy(io.Discard, br)
			})
			for _, kind := range []Kind{HTTP2, GRPC} {
				cfg := Config{Addr: ln.Addr().String(), Clients: map[Kind]int{kind: 1}, MaxRequests: 1}
				var want Failures
				want[tc.want] = 1
				if r := run(t, cfg); r.Failures != want || r.ClosedIdle != 0 || r.Accounted() != nil {
					t.Errorf("want %v:\n%v", want, r)
				}
			}
		})
	}
}

// unwritable is a connection of which a write sees that it has ended.
type unwritable struct{ scripted }

func (unwritable) Write([]byte) (int, error) {
	return 0, &net.OpError{Op: "write", Err: os.NewSyscallError("write", syscall.EPIPE)}
}

// TestHTTP2Written: that a connection has ended may be seen by a write first, of one request,
// and net/http then says something else to the others.
func TestHTTP2Written(t *testing.T) {
	t.Parallel()
	c := &h2conn{wire: newWire(unwritable{}, true)}
	others := errors.New("http2: client connection force closed via ClientConn.Close")
	if class, _ := c.classify(others, false, "waiting"); class != Body {
		t.Errorf("with no reason: %v", class)
	}
	_, err := c.wire.Write([]byte("x"))
	for _, err := range []error{err, others} {
		if class, detail := c.classify(err, false, "waiting"); class != Reset || !strings.Contains(detail, "broken pipe") {
			t.Errorf("%v: %v, %s", err, class, detail)
		}
	}
}

// TestHTTP2Late: a stream that was begun when the server had said that it leaves is not held
// against it, one that was begun before is.
func TestHTTP2Late(t *testing.T) {
	t.Parallel()
	const (
		hello    = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings
		ask1     = "\x00\x00\x01\x01\x05\x00\x00\x00\x01x"
		ask3     = "\x00\x00\x01\x01\x05\x00\x00\x00\x03x"
		noGoAway = "\x00\x00\x01\x07\x00\x00\x00\x00\x00x" // too short for one
	)
	for name, tc := range map[string]struct {
		exchange []string // sent, received, sent, received, …
		late     bool
	}{
		"before":                {[]string{hello + ask1, settings + goAway}, false},
		"after":                 {[]string{hello, settings + goAway, ask1, ""}, true},
		"after the first one":   {[]string{hello, settings + leaves, ask1, goAway}, true},
		"one before, looked at": {[]string{hello + ask1, settings + leaves, ask3, looked1}, true},
		"one before, not":       {[]string{hello + ask1, settings + leaves, ask3, goAway}, false},
		"taken back":            {[]string{hello + ask1, settings + goAway + leaves}, false},
		"both before":           {[]string{hello + ask1 + ask3, settings + leaves, "", looked1}, false},
		"no leave":              {[]string{hello + ask1, settings + noGoAway + settings}, false},
	} {
		for _, piece := range []int{1, 7, 1000} {
			in := bytes.NewReader(nil)
			w := newWire(scripted{in: in}, true)
			for i, text := range tc.exchange {
				for part := range slices.Chunk([]byte(text), piece) {
					if i%2 == 0 {
						w.Write(part)
					} else {
						in.Reset(part)
						w.Read(make([]byte, piece))
					}
				}
			}
			if w.late() != tc.late {
				t.Errorf("%s, in pieces of %d: %v", name, piece, w.late())
			}
		}
	}
}

// What ends with nothing lost is no failure, and the next request has another connection.
func TestHTTP2ClosedIdle(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		end    func(w http.ResponseWriter, r *http.Request)
		detail string
	}{
		"leaves": {func(w http.ResponseWriter, r *http.Request) { w.Header().Set("Connection", "close") }, "GOAWAY"},
		"closes": {func(w http.ResponseWriter, r *http.Request) {
			time.AfterFunc(100*time.Millisecond, func() { closes(r, false) })
		}, "idle: EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for _, kind := range []Kind{HTTP2, GRPC} {
				var n atomic.Int32
				cfg, conns := http2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
					if n.Add(1) == 1 {
						tc.end(w, r)
					}
					right{}.ServeHTTP(w, r)
				})
				cfg.Clients, cfg.Rate = map[Kind]int{kind: 1}, 0.5
				l := mustStart(t, cfg)
				waitFor(t, l, "an answer on another connection", func(r Result) bool { return r.OK > 1 })
				r := l.Stop()
				if r.Failures.Total() != 0 || r.ClosedIdle != 1 || conns.Load() != 2 || !strings.Contains(r.Errors[0].Detail, tc.detail) ||
					r.Errors[0].Class != ClosedIdle || r.Errors[0].ID == "" || r.Accounted() != nil {
					t.Errorf("%d connections\n%v", conns.Load(), r)
				}
			}
		})
	}
}
