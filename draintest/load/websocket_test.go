package load

import (
	"context"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
)

// echoServer echoes, by another way than every nth time, if there is one.
func echoServer(t testing.TB, secure bool, nth int, bad func(ctx context.Context, ws *websocket.Conn, r *http.Request, text string) bool) (Config, *atomic.Int32) {
	cfg, conns := http2Server(t, secure, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/echo" {
			right{}.ServeHTTP(w, r)
			return
		}
		w.Header().Set("X-Worker", "w")
		ws, err := websocket.Accept(w, r, nil)
		if err != nil {
			return
		}
		defer ws.CloseNow()
		ctx := r.Context()
		for n := 1; ; n++ {
			_, text, err := ws.Read(ctx)
			if err != nil {
				return
			}
			if n == nth && !bad(ctx, ws, r, string(text)) {
				return
			}
			if n != nth && ws.Write(ctx, websocket.MessageText, text) != nil {
				return
			}
		}
	})
	cfg.Clients = map[Kind]int{WebSocket: 2}
	return cfg, conns
}

func TestWebSocket(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"plain": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, conns := echoServer(t, secure, 0, nil)
			cfg.MaxRequests = 60
			r := run(t, cfg)
			if err := r.Check(); err != nil || r.OK != 60 || conns.Load() != 2 || r.Workers["w"] != 60 {
				t.Errorf("%v; %d connections for 2 clients\n%v", err, conns.Load(), r)
			}
		})
	}
}

// says writes a message.
func says(ctx context.Context, ws *websocket.Conn, text string) {
	ws.Write(ctx, websocket.MessageText, []byte(text))
}

func TestWebSocketFails(t *testing.T) {
	t.Parallel()
	type bad = func(ctx context.Context, ws *websocket.Conn, r *http.Request, text string) bool
	for name, tc := range map[string]struct {
		bad    bad // in the place of the second echo of a connection. False ends it
		want   Class
		detail string
	}{
		"cut": {func(context.Context, *websocket.Conn, *http.Request, string) bool { return false }, EOF, "without a close frame"},
		"RST": {func(_ context.Context, _ *websocket.Conn, r *http.Request, _ string) bool {
			closes(r, true)
			return false
		},
			Reset, "without a close frame"},
		"close frame": {func(_ context.Context, ws *websocket.Conn, _ *http.Request, _ string) bool {
			ws.Close(websocket.StatusGoingAway, "")
			return false
		}, Closing, "1001"},
		"nothing": {func(context.Context, *websocket.Conn, *http.Request, string) bool { return true }, Timeout, "waiting for the echo"},
		"of another": {func(ctx context.Context, ws *websocket.Conn, _ *http.Request, text string) bool {
			says(ctx, ws, text+"0")
			return true
		}, CrossTalk, "echo of message"},
		"changed": {func(ctx context.Context, ws *websocket.Conn, _ *http.Request, text string) bool {
			says(ctx, ws, text+"!")
			return true
		}, Body, "there came"},
		"cut while idle": {func(ctx context.Context, ws *websocket.Conn, _ *http.Request, text string) bool {
			says(ctx, ws, text)
			return false
		}, EOF, "idle: EOF, without a close frame"},
		"twice": {func(ctx context.Context, ws *websocket.Conn, _ *http.Request, text string) bool {
			says(ctx, ws, text)
			says(ctx, ws, text)
			return true
		}, Duplicated, "duplicated"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := echoServer(t, false, 2, tc.bad)
			cfg.Clients, cfg.Rate = map[Kind]int{WebSocket: 1}, 20
			if strings.Contains(name, "idle") {
				cfg.Rate = 0.7 // the next message is far away
			}
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			l := mustStart(t, cfg)
			waitFor(t, l, "a failure", func(r Result) bool { return r.Failures.Total() > 0 })
			r := l.Stop()
			if r.Failures[tc.want] != r.Failures.Total() || r.OK < 1 || r.ClosedIdle != 0 || r.Accounted() != nil {
				t.Fatalf("want %v:\n%v", tc.want, r)
			}
			if f := r.Errors[0]; !strings.Contains(r.Check().Error(), tc.detail) || f.Nth != 2 || f.Remote != cfg.Addr {
				t.Errorf("want %q: %+v", tc.detail, f)
			}
		})
	}
}

// A close frame between two messages is an end in order, and the next one has another
// connection.
func TestWebSocketClosedIdle(t *testing.T) {
	t.Parallel()
	cfg, conns := echoServer(t, false, 1, func(ctx context.Context, ws *websocket.Conn, _ *http.Request, text string) bool {
		says(ctx, ws, text)
		ws.Close(websocket.StatusServiceRestart, "")
		return false
	})
	cfg.Clients, cfg.MaxRequests, cfg.Rate = map[Kind]int{WebSocket: 1}, 2, 0.7
	l := mustStart(t, cfg)
	waitFor(t, l, "an echo on another connection", func(r Result) bool { return r.OK == 2 })
	r := l.Stop()
	if r.Failures.Total() != 0 || r.ClosedIdle < 1 || conns.Load() != 2 || !strings.Contains(r.Errors[0].Detail, "1012") {
		t.Errorf("%d connections\n%v", conns.Load(), r)
	}
}

// Who does not shake hands is told apart, and a greeting is no echo.
func TestWebSocketHandshake(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		h      http.HandlerFunc
		want   Class
		detail string
	}{
		"503":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, Status, "503"},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/", http.StatusFound) }, Status, "302"},
		"page":     {func(http.ResponseWriter, *http.Request) {}, Status, "200"},
		"RST":      {func(_ http.ResponseWriter, r *http.Request) { closes(r, true) }, Reset, "handshake"},
		"EOF":      {func(_ http.ResponseWriter, r *http.Request) { closes(r, false) }, EOF, "handshake"},
		"nothing":  {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Timeout, "handshake"},
		"greets": {func(w http.ResponseWriter, r *http.Request) {
			ws, err := websocket.Accept(w, r, nil)
			if err != nil {
				return
			}
			says(r.Context(), ws, "hello")
			for {
				_, text, err := ws.Read(r.Context())
				if err != nil {
					return
				}
				says(r.Context(), ws, "you said: "+string(text))
			}
		}, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cfg, _ := http2Server(t, false, tc.h)
			cfg.Clients, cfg.MaxRequests, cfg.Plain = map[Kind]int{WebSocket: 2}, 2, true
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			r := run(t, cfg)
			var want Failures
			if tc.want != 0 {
				want[tc.want] = 2
			}
			if r.Failures != want || r.Accounted() != nil || tc.want != 0 && !strings.Contains(r.Check().Error(), tc.detail) {
				t.Errorf("want %v:\n%v", want, r)
			}
		})
	}
}

// Nobody listens.
func TestKeptKindsRefused(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	ln.Close()
	r := run(t, Config{Addr: ln.Addr().String(), Clients: map[Kind]int{WebSocket: 1, HTTP2: 1, KeepAlive: 1, GRPC: 1, TCP: 1, UDP: 1}, MaxRequests: 12})
	if r.Failures[Refused] != 12 {
		t.Error(r)
	}
}
