package load

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"reflect"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func TestRightServerPasses(t *testing.T) {
	t.Parallel()
	cfg := quick(rightServer(t, func() string { return "w/1" }))
	cfg.Clients = map[Kind]int{New: 2, Slow: 1, Upload: 1, Stream: 1}
	cfg.WaitReady = time.Minute
	l := mustStart(t, cfg)
	if err := l.WaitEach(within(t), 5); err != nil {
		t.Fatal(err)
	}
	if err := l.WaitRequests(within(t), 20); err != nil {
		t.Fatal(err)
	}
	r := l.Stop()
	if err := r.Check(); err != nil {
		t.Fatal(err)
	}
	if r.OK < 20 || r.OK != r.Started || r.InFlight() != 0 || len(r.ByKind) != 4 || r.Workers["w/1"] != r.OK ||
		r.Elapsed <= 0 || r.Latency.P50 <= 0 || r.ByKind[Slow].Latency.P50 < 20*time.Millisecond {
		t.Errorf("result lacks something:\n%v", r)
	}
	if again := l.Stop(); !reflect.DeepEqual(r, again) {
		t.Errorf("a second Stop says\n%v\nafter\n%v", again, r)
	}
	for _, word := range []string{"new", "slow", "upload", "stream", "all", "p99"} {
		if !strings.Contains(r.String(), word) {
			t.Errorf("no %q in the table:\n%v", word, r)
		}
	}
}

func TestUnixSocket(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "s")
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(right{})
	srv.Listener.Close()
	srv.Listener = ln
	srv.Start()
	t.Cleanup(srv.Close)
	cfg := quick("unix:" + path)
	if err := runEach(t, cfg).Check(); err != nil {
		t.Error(err)
	}
}

func TestHeaderIsSent(t *testing.T) {
	t.Parallel()
	var wrong atomic.Pointer[http.Request]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "let me in" || r.Host == "" || !r.Close {
			wrong.Store(r)
		}
		right{}.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	cfg := quick(srv.Listener.Addr().String())
	cfg.Header = http.Header{"Authorization": {"let me in"}}
	if err := runEach(t, cfg).Check(); err != nil || wrong.Load() != nil {
		t.Errorf("%v; request: %v", err, wrong.Load())
	}
}

func TestWaitWorker(t *testing.T) {
	t.Parallel()
	var generation atomic.Int32
	addr := rightServer(t, func() string { return fmt.Sprint("g", generation.Load()) })
	l := mustStart(t, quick(addr))
	if err := l.WaitWorker(within(t), func(w string) bool { return w == "g0" }); err != nil {
		t.Fatal(err)
	}
	generation.Store(1)
	if err := l.WaitWorker(within(t), func(w string) bool {
		l.Snapshot() // the predicate may use the load
		return w == "g1"
	}); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	bored := errors.New("bored")
	cancel(bored)
	if err := l.WaitWorker(ctx, func(w string) bool { return w == "g2" }); !errors.Is(err, bored) {
		t.Errorf("WaitWorker says %v, want its context's cause", err)
	}
	l.Stop()
	if err := l.WaitWorker(within(t), func(string) bool { return true }); !errors.Is(err, ErrStopped) {
		t.Errorf("WaitWorker says %v, want ErrStopped: no answer came after the call", err)
	}
}

func TestWaitsEndWithTheLoad(t *testing.T) {
	t.Parallel()
	cfg := quick(rightServer(t, nil))
	cfg.MaxRequests = 5
	l := mustStart(t, cfg)
	if err := l.WaitRequests(within(t), 6); !errors.Is(err, ErrStopped) {
		t.Errorf("WaitRequests(6) of 5 says %v, want ErrStopped", err)
	}
	if r := l.Stop(); r.Started != 5 {
		t.Errorf("MaxRequests 5:\n%v", r)
	}
	if err := l.WaitRequests(within(t), 0); err != nil {
		t.Errorf("nothing to wait for, and yet: %v", err)
	}
}

func TestContextEndsTheLoad(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	l, err := Start(ctx, quick(rightServer(t, nil)))
	if err != nil {
		t.Fatal(err)
	}
	if err := l.WaitEach(within(t), 2); err != nil {
		t.Error(err)
	}
	cancel()
	<-l.Done()
	if err := l.Stop().Check(); err != nil {
		t.Errorf("what was under way must end well: %v", err)
	}
}

func TestWaitReady(t *testing.T) {
	t.Parallel()
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked.Add(1) < 4 {
			http.Error(w, "not yet", http.StatusServiceUnavailable)
			return
		}
		right{}.ServeHTTP(w, r)
	}))
	t.Cleanup(srv.Close)
	cfg := quick(srv.Listener.Addr().String())
	cfg.WaitReady = time.Minute
	if err := runEach(t, cfg).Check(); err != nil {
		t.Error("failures before readiness count:", err)
	}
}

func TestNeverReady(t *testing.T) {
	t.Parallel()
	cfg := quick(rightServer(t, nil))
	cfg.Addr = "unix:" + filepath.Join(t.TempDir(), "gone")
	cfg.WaitReady = 500 * time.Millisecond
	_, err := Start(t.Context(), cfg)
	if err == nil || !strings.Contains(err.Error(), "WaitReady") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("Start says %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	cfg.WaitReady = time.Hour
	if _, err := Start(ctx, cfg); !errors.Is(err, context.Canceled) {
		t.Errorf("Start says %v, want context.Canceled", err)
	}
}

// pipeServer is a right server for GET / without sockets, for tests in which time is not
// real: before is what it does on the n-th connection, from 1, before it answers,
// after what it does before it closes.
func pipeServer(wg *sync.WaitGroup, before func(n int), after func(net.Conn)) func(Kind, time.Time) (net.Conn, error) {
	var n atomic.Int32
	return func(Kind, time.Time) (net.Conn, error) {
		us, them := net.Pipe()
		wg.Go(func() {
			defer them.Close()
			req, err := http.ReadRequest(bufio.NewReader(them))
			before(int(n.Add(1)))
			if err == nil {
				io.WriteString(them, ok(req))
				after(them)
			}
		})
		return us, nil
	}
}

// The server stalls for a second in the first of ten requests per second, and the
// client may have just one under way. A closed loop would find one slow request;
// here the nine that should have been sent meanwhile are slow, too.
func TestStallIsNotHidden(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Addr: "pipe:1", Clients: map[Kind]int{New: 1}, Rate: 10, MaxInFlight: 1, MaxRequests: 20}
		var wg sync.WaitGroup
		l, err := start(t.Context(), &client{cfg: cfg.withDefaults(), dial: pipeServer(&wg, func(n int) {
			if n == 1 {
				<-time.After(time.Second)
			}
		}, func(net.Conn) {})})
		if err != nil {
			t.Fatal(err)
		}
		<-l.Done()
		wg.Wait()
		r := l.Stop()
		if err := r.Check(); err != nil {
			t.Fatal(err)
		}
		// Latencies: 1.0, 0.9 … 0.1, and ten times zero.
		want := Latency{P50: 0, P90: 800 * time.Millisecond, P99: time.Second, P999: time.Second, Max: time.Second}
		for _, q := range [][2]time.Duration{{r.Latency.P50, want.P50}, {r.Latency.P90, want.P90}, {r.Latency.P99, want.P99}, {r.Latency.Max, want.Max}} {
			if q[0] < q[1] || q[0] > q[1]+q[1]/16+time.Microsecond {
				t.Errorf("latency is %+v, want %+v", r.Latency, want)
			}
		}
		if r.Late != 900*time.Millisecond || r.Elapsed != 1900*time.Millisecond {
			t.Errorf("late %v, want 900ms; elapsed %v, want 1.9s", r.Late, r.Elapsed)
		}
	})
}

// With room for more under way, the same stall delays nobody else.
func TestOpenLoop(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Addr: "pipe:1", Clients: map[Kind]int{New: 2}, Rate: 10, Timeout: 2 * time.Second}
		var wg sync.WaitGroup
		l, err := start(t.Context(), &client{cfg: cfg.withDefaults(), dial: pipeServer(&wg, func(n int) {
			if n == 1 {
				<-time.After(time.Minute)
			}
		}, func(net.Conn) {})})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(990 * time.Millisecond)
		if r := l.Snapshot(); r.Started != 20 || r.InFlight() != 1 || r.OK != 19 {
			t.Errorf("after a second at 2 × 10/s:\n%v", r)
		}
		r := l.Stop()
		wg.Wait()
		if r.Started != 20 || r.Failures[Timeout] != 1 || r.Elapsed != 2*time.Second || r.Late != 0 {
			t.Errorf("Stop must wait for the request under way, which times out:\n%v", r)
		}
	})
}

// A connection that the server does not close is no failure, does not count as
// latency, and is waited for just so long.
func TestLeftOpen(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cfg := Config{Addr: "pipe:1", Clients: map[Kind]int{New: 1}, MaxRequests: 1}
		var wg sync.WaitGroup
		l, err := start(t.Context(), &client{cfg: cfg.withDefaults(), dial: pipeServer(&wg, func(int) {},
			func(c net.Conn) { io.Copy(io.Discard, c) })})
		if err != nil {
			t.Fatal(err)
		}
		<-l.Done()
		r := l.Stop()
		wg.Wait()
		if r.Check() != nil || r.LeftOpen != 1 || r.Elapsed != closeGrace || r.Latency.Max != 0 {
			t.Errorf("want one left open and no failure:\n%v", r)
		}
	})
}

// Of a client that cannot have more than one under way, those that could not be begun are
// counted: the rate was not kept.
func TestMissed(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var wg sync.WaitGroup
		dial := func(Kind, time.Time) (net.Conn, error) {
			us, them := net.Pipe()
			wg.Go(func() {
				defer them.Close()
				for br := bufio.NewReader(them); ; {
					req, err := http.ReadRequest(br)
					if err != nil {
						return
					}
					<-time.After(time.Second)
					io.WriteString(them, ok(req))
				}
			})
			return us, nil
		}
		cfg := Config{Addr: "pipe:1", Clients: map[Kind]int{KeepAlive: 1}, Rate: 10}
		l, err := start(t.Context(), &client{cfg: cfg.withDefaults(), dial: dial})
		if err != nil {
			t.Fatal(err)
		}
		<-time.After(9950 * time.Millisecond)
		r := l.Stop()
		wg.Wait()
		// 100 were due, from 0 to 9.9 s, the last one just then.
		if r.Started != 10 || r.Missed != 89 || r.ByKind[KeepAlive].Missed != 89 || r.Behind != 0 || r.Accounted() != nil ||
			!strings.Contains(r.String(), "up to the end: 89") {
			t.Errorf("want 10 started and 89 missed, behind 0 (it is %v):\n%v", r.Behind, r)
		}
	})
}

func TestThink(t *testing.T) {
	t.Parallel()
	c := Config{Clients: map[Kind]int{New: 2, KeepAlive: 3, WebSocket: 1}, Rate: 10, Think: []time.Duration{time.Second, 2 * time.Second}}
	for _, tc := range []struct {
		k    Kind
		nth  int
		want time.Duration
	}{{New, 0, 100 * time.Millisecond}, {KeepAlive, 0, time.Second}, {KeepAlive, 1, 2 * time.Second}, {KeepAlive, 2, time.Second}, {HTTP2, 3, 2 * time.Second}} {
		if got := c.interval(tc.k, tc.nth); got != tc.want {
			t.Errorf("client %d of kind %v waits %v, want %v", tc.nth, tc.k, got, tc.want)
		}
	}
	if got := c.rate(KeepAlive); got != 2.5 {
		t.Errorf("three clients make %v/s, want 2.5", got)
	}
	if c.rate(New) != 20 || c.rate(WebSocket) != 1 {
		t.Errorf("%v/s and %v/s", c.rate(New), c.rate(WebSocket))
	}
}
