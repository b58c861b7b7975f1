package load

import (
	"encoding/binary"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestGRPC(t *testing.T) {
	t.Parallel()
	for name, secure := range map[string]bool{"prior knowledge": false, "TLS": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var wrong atomic.Pointer[http.Request]
			var now, most atomic.Int32
			cfg, conns := http2Server(t, secure, func(w http.ResponseWriter, r *http.Request) {
				n := now.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				body, err := io.ReadAll(r.Body)
				if err != nil || string(body) != "\x00\x00\x00\x00\x00" || r.ContentLength != -1 || r.Method != "POST" || r.ProtoMajor != 2 ||
					r.RequestURI != "/grpc.health.v1.Health/Check" || r.Header.Get("Content-Type") != "application/grpc" ||
					r.Header.Get("Te") != "trailers" || r.Header.Get("X-Own") != "1" || (r.TLS != nil) != secure {
					wrong.Store(r)
				}
				<-time.After(100 * time.Millisecond)
				right{func() string { return "w" }}.ServeHTTP(w, r)
				now.Add(-1)
			})
			cfg.Clients, cfg.MaxRequests = map[Kind]int{GRPC: 2}, 60
			cfg.Header = http.Header{"X-Own": {"1"}, "Content-Type": {"text/plain"}}
			r := run(t, cfg)
			if err := r.Check(); err != nil || wrong.Load() != nil {
				t.Errorf("%v; request: %+v", err, wrong.Load())
			}
			if r.OK != 60 || r.Unmatched != 0 || conns.Load() != 2 || most.Load() < 3 || r.Workers["w"] != 60 {
				t.Errorf("%d connections for 2 clients, %d calls beside one another\n%v", conns.Load(), most.Load(), r)
			}
		})
	}
}

// A server that knows nothing of this package, as those of gRPC's own libraries, is good
// without being said to be plain.
func TestGRPCUnmatched(t *testing.T) {
	t.Parallel()
	cfg, _ := http2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/shop.Items/Count" {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		call(w, "0", serving)
	})
	cfg.Clients, cfg.MaxRequests, cfg.Status = map[Kind]int{GRPC: 1}, 10, http.StatusAccepted
	cfg.Path = map[Kind]string{GRPC: "/shop.Items/Count"}
	if r := run(t, cfg); r.Check() != nil || r.Unmatched != 10 {
		t.Error(r)
	}
}

func TestGRPCFails(t *testing.T) {
	t.Parallel()
	trailers := func(status, body string) func(w http.ResponseWriter, r *http.Request) {
		return func(w http.ResponseWriter, r *http.Request) { call(w, status, body) }
	}
	for name, tc := range map[string]struct {
		bad    func(w http.ResponseWriter, r *http.Request)
		want   Class
		detail string
	}{
		"RST":          {func(_ http.ResponseWriter, r *http.Request) { closes(r, true) }, Reset, "reset by peer"},
		"EOF":          {func(_ http.ResponseWriter, r *http.Request) { closes(r, false) }, EOF, "waiting for the answer"},
		"stream reset": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, Reset, "stream error"},
		"reset inside the message": {func(w http.ResponseWriter, r *http.Request) {
			call(w, "0", serving[:6])
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, Cut, "after 6 bytes"},
		"cut between message and status": {func(w http.ResponseWriter, r *http.Request) {
			call(w, "0", serving)
			w.(http.Flusher).Flush()
			closes(r, false)
		}, Cut, "bytes of the answer's body"}, // net/http may lose the last bytes before an error
		"no status":          {trailers("", serving), Cut, "ended without grpc-status, after 7 bytes"},
		"a part of it":       {trailers("0", serving[:6]), Cut, "inside a message, after 6 bytes"},
		"a part of its head": {trailers("0", serving[:1]), Cut, "inside a message, after 1 bytes"},
		"no message":         {trailers("0", ""), Body, "no message"},
		"answered twice":     {trailers("0", serving+serving), Duplicated, "2 messages"},
		"compressed":         {trailers("0", "\x01"+serving[1:]), Body, "compressed"},
		"unavailable": {func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set(http.TrailerPrefix+"Grpc-Message", "b%C3%BCsy 100%")
			call(w, "14", serving)
		}, Status, `grpc-status 14 (UNAVAILABLE): "b%C3%BCsy 100%"`},
		"unknown, and nothing else": {func(w http.ResponseWriter, r *http.Request) {
			for name, value := range map[string]string{"Content-Type": "application/grpc", "Grpc-Status": "12", "Grpc-Message": "unknown%20service"} {
				w.Header().Set(name, value)
			}
		}, Status, `grpc-status 12 (UNIMPLEMENTED): "unknown service"`},
		"no such status": {trailers("17", ""), Status, "grpc-status 17 (no such status)"},
		"503":            {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(503) }, Status, "503"},
		"a page":         {func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, Body, "not gRPC"},
		"gRPC-Web":       {func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Type", "application/grpc-web") }, Body, "not gRPC"},
		"another": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("X-Request-Id", "x")
			call(w, "0", serving)
		}, CrossTalk, "request x"},
		"nothing": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, Timeout, "deadline"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var n atomic.Int32
			cfg, _ := http2Server(t, false, func(w http.ResponseWriter, r *http.Request) {
				if n.Add(1)%3 == 0 {
					io.Copy(io.Discard, r.Body) // a connection that is closed with something unread is reset
					tc.bad(w, r)
					return
				}
				right{}.ServeHTTP(w, r)
			})
			// One at a time, so that none suffers with another.
			cfg.Clients, cfg.MaxInFlight, cfg.MaxRequests = map[Kind]int{GRPC: 1}, 1, 6
			if tc.want == Timeout {
				cfg.Timeout = 500 * time.Millisecond
			}
			r := run(t, cfg)
			var want Failures
			want[tc.want] = 2
			if r.Failures != want || r.OK != 4 || r.ClosedIdle != 0 || r.Accounted() != nil || r.Check() == nil {
				t.Fatalf("want %v:\n%v", want, r)
			}
			if f := r.Errors[0]; !strings.Contains(f.Detail, tc.detail) || f.Kind != GRPC || f.Nth != 3 || f.Remote != cfg.Addr || f.Local == "" {
				t.Errorf("want %q: %+v\n%v", tc.detail, f, f)
			}
		})
	}
}

// Whatever a body is, and in whatever pieces it comes, messages are counted right, and one is
// good only if it is there, whole and alone.
func FuzzMessages(f *testing.F) {
	for _, seed := range []string{"", "\x00", serving, serving[:6], serving + serving, serving + "\x00", "\x01" + serving[1:],
		"\x00\x00\x00\x00\x00", "\x00\xff\xff\xff\xff\x00", "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"} {
		f.Add([]byte(seed), uint8(3))
	}
	f.Fuzz(func(t *testing.T, body []byte, piece uint8) {
		var m messages
		for rest := body; len(rest) > 0; {
			part := rest[:min(len(rest), max(1, int(piece)))]
			if n, err := m.Write(part); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
			rest = rest[len(part):]
		}
		whole, rest := int64(0), body
		for len(rest) >= grpcHead && uint64(len(rest)-grpcHead) >= uint64(binary.BigEndian.Uint32(rest[1:])) {
			whole++
			rest = rest[grpcHead+int(binary.BigEndian.Uint32(rest[1:])):]
		}
		if m.whole != whole || m.begun() != (len(rest) > 0) || m.size != int64(len(body)) {
			t.Errorf("%q: %+v, want %d whole and %q", body, m, whole, rest)
		}
		class, detail := m.judge(http.Header{"Grpc-Status": {"0"}})
		if good := whole == 1 && len(rest) == 0 && body[0] == 0; good != (class == 0) || good != (detail == "") {
			t.Errorf("%q: %v, %q", body, class, detail)
		}
		if class, _ := m.judge(http.Header{}); class != Cut {
			t.Errorf("%q without a status: %v", body, class)
		}
	})
}
