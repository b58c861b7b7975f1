package draintest_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
)

func TestMain(m *testing.M) {
	if mode := os.Getenv(envServer); mode != "" {
		serverMain(mode)
		return
	}
	goleak.VerifyTestMain(m)
}

// freeAddr is an address on which nothing listens now, and that no client is given as
// its own meanwhile: ip(7), ip_local_port_range.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// of is a test of one of this binary's servers.
func of(t testing.TB, mode string, kinds ...load.Kind) draintest.Config {
	t.Helper()
	addr := freeAddr(t)
	clients := map[load.Kind]int{}
	for _, k := range kinds {
		clients[k] = 2
	}
	return draintest.Config{
		Command: []string{"/proc/self/exe"},
		Env:     []string{envServer + "=" + mode, "DRAINTEST_ADDR=" + addr, "GORACE=atexit_sleep_ms=0"},
		Load:    load.Config{Addr: addr, Rate: 20, Clients: clients, SlowMS: 100, StreamMS: 100, UploadMS: 100},
		Action:  draintest.Signal(syscall.SIGHUP),
		Rounds:  3,
		Every:   500 * time.Millisecond,
		Settle:  5 * time.Second,
		Output:  t.Output(),
		// This machine may be a busy one.
		MaxBehind: 10 * time.Second,
	}
}

// A server that is right passes, with every kind of client.
func TestRight(t *testing.T) {
	r := draintest.Run(t, of(t, "right", load.New, load.Slow, load.Upload, load.Stream, load.KeepAlive))
	if !r.Watched || !r.Named || len(r.Rounds) != 3 || r.Processes < 3 || r.Memory == 0 || len(r.Timeline) == 0 {
		t.Errorf("%+v", r)
	}
	t.Log(r)
}

// Each server that is wrong is found out, and what is wrong with it is named.
func TestWrong(t *testing.T) {
	all := []load.Kind{load.New, load.Slow, load.Upload, load.Stream}
	for _, tc := range []struct {
		mode    string
		kinds   []load.Kind
		finding string // name: part of its text
		more    string // names of others that may be found: http.Server.Shutdown may lose a request
	}{
		{"refuses", all, "failed: failed: refused", "failed"},
		{"resets", all, "failed: failed: reset", "failed"},
		{"cuts", []load.Kind{load.Stream}, "failed: failed: cut in the answer", "failed"},
		{"idle", []load.Kind{load.KeepAlive}, "closed-idle: ", "failed"},
		{"idle", []load.Kind{load.HTTP2}, "closed-idle: ", "failed"},
		{"cuts", []load.Kind{load.HTTP2}, "failed: failed: EOF before the answer", "closed-idle failed"},
		{"cuts", []load.Kind{load.WebSocket}, "failed: failed: EOF before the answer", "failed"},
		{"twice", []load.Kind{load.New}, "failed: failed: duplicated", "failed"},
		{"crosses", []load.Kind{load.New}, "failed: failed: cross-talk", "failed"},
		{"unready", []load.Kind{load.New}, "failed: failed: wrong status", "failed"},
		{"stays", all, "stayed: after rounds 1, 2, 3 ", "failed"},
		{"leaks", all, "descriptors: more descriptors", "failed"},
		{"helper", all, "unchanged: in rounds 1, 2, 3 ", ""},
		{"ignores", all, "unchanged: in rounds 1, 2, 3 ", ""},
		{"dies", all, "ended: the program has ended", "failed unchanged unanswered left"},
		{"zombie", all, "zombies: ", "descriptors failed"},
	} {
		t.Run(tc.mode, func(t *testing.T) {
			t.Parallel()
			cfg := of(t, tc.mode, tc.kinds...)
			cfg.Settle = 3 * time.Second
			cfg.Load.Path = map[load.Kind]string{load.HTTP2: "/slow?ms={ms}"} // in flight most of the time
			if tc.mode == "helper" {
				cfg.Load.WorkerHeader = "X-None" // a new process is all that can be seen
			}
			r, err := draintest.Test(t.Context(), cfg)
			if err != nil {
				t.Fatal(err)
			}
			found := false
			for _, f := range r.Findings {
				// Of failed requests the class is what is to be found: "2 requests failed: reset; …".
				name, part, _ := strings.Cut(tc.finding, ": ")
				is := f.Name == name && strings.Contains(f.Text, part)
				found = found || is && f.Verdict == draintest.Fail
				if !is && !strings.Contains(" "+tc.more+" ", " "+f.Name+" ") {
					t.Errorf("found, too: %s: %s", f.Name, f.Text)
				}
			}
			if !found || r.Verdict() != draintest.Fail {
				t.Errorf("%q was not found", tc.finding)
			}
			t.Log(r)
		})
	}
}

// TestLeaves: a server that takes leave of its clients, over TLS, by GOAWAY and by close
// frames, closes what is idle and loses no request, unless one is on its way in that moment.
func TestLeaves(t *testing.T) {
	cfg := of(t, "leaves", load.KeepAlive, load.HTTP2, load.WebSocket)
	certified := httptest.NewTLSServer(nil)
	defer certified.Close()
	cfg.Load.TLS = &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.Load.TLS.RootCAs.AddCert(certified.Certificate())
	cfg.Load.Think = []time.Duration{250 * time.Millisecond}
	cfg.MaxClosedIdle, cfg.MaxFailed = -1, -1
	r := draintest.Run(t, cfg)
	closed := map[load.Kind]bool{}
	for _, f := range r.Failures {
		if f.Class == load.ClosedIdle {
			closed[f.Kind] = true
		} else if f.Class != load.GoneAway && f.Class != load.Closing && f.Class != load.EOF && f.Class != load.Reset {
			t.Error(f)
		}
	}
	if len(closed) != 3 || r.Load.Failures.Total() > r.Load.ClosedIdle {
		t.Errorf("closed: %v\n%v", closed, r)
	}
}

// TestRateNotKept: a load that asks for more than its clients can ask for is no pass.
func TestRateNotKept(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
		time.Sleep(200 * time.Millisecond)
	}))
	defer srv.Close()
	cfg := of(t, "", load.KeepAlive)
	cfg.Load.Addr, cfg.Command, cfg.Unchanged, cfg.Rounds = srv.Listener.Addr().String(), nil, true, 1
	cfg.Action = draintest.Call("nothing", func(context.Context, int) error { return nil })
	r, err := draintest.Test(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if r.Verdict() != draintest.Untested || len(r.Findings) != 1 || !strings.Contains(r.Findings[0].Text, "could not keep its rate: of kind keepalive ") {
		t.Error(r)
	}
}

// TestSomebodyElse: a server that was forgotten answers, and not the one that is tested.
func TestSomebodyElse(t *testing.T) {
	forgotten := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Request-Id", r.Header.Get("X-Request-Id"))
	}))
	defer forgotten.Close()
	cfg := of(t, "right", load.New)
	cfg.Load.Addr = forgotten.Listener.Addr().String()
	if _, err := draintest.Test(t.Context(), cfg); !errors.Is(err, draintest.ErrStart) || !strings.Contains(err.Error(), "is answered by another process") {
		t.Error(err)
	}
}

// TestSolo: a server of one process, whose successors outlive it, and print.
func TestSolo(t *testing.T) {
	var out lockedBuffer
	cfg := of(t, "solo", load.New, load.KeepAlive)
	cfg.Output, cfg.Every = &out, 1500*time.Millisecond
	r := draintest.Run(t, cfg)
	pids := map[string]bool{}
	for _, line := range strings.Fields(out.String()) {
		pids[line] = true
	}
	if len(pids) != 4 || r.Processes != 1 || len(r.Lives) < 4 {
		t.Errorf("%d processes have printed, not 4\n%v", len(pids), r)
	}
}

// Without anything that could be tested there is an error, and no report.
func TestNoServer(t *testing.T) {
	cfg := of(t, "right", load.New)
	cfg.Command = []string{"/no/such/program"}
	if _, err := draintest.Test(t.Context(), cfg); !errors.Is(err, draintest.ErrStart) {
		t.Errorf("no program: %v", err)
	}
	cfg.Command = []string{"/bin/false"}
	if _, err := draintest.Test(t.Context(), cfg); !errors.Is(err, draintest.ErrStart) {
		t.Errorf("a program that ends: %v", err)
	}
	cfg.Command, cfg.PIDFile = nil, "/no/such/file"
	if _, err := draintest.Test(t.Context(), cfg); !errors.Is(err, draintest.ErrStart) {
		t.Errorf("no PID file: %v", err)
	}
	cfg.PIDFile = filepath.Join(t.TempDir(), "pid")
	for pid, is := range map[int]string{1: "descends", os.Getpid(): "descends", os.Getppid(): "descends", -1: "is no pid"} {
		if err := os.WriteFile(cfg.PIDFile, fmt.Append(nil, pid), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := draintest.Test(t.Context(), cfg); !errors.Is(err, draintest.ErrStart) || !strings.Contains(err.Error(), is) {
			t.Errorf("a PID file with %d: %v", pid, err)
		}
	}
	cfg.PIDFile, cfg.Action = "", draintest.Call("nothing", func(context.Context, int) error { return nil })
	cfg.Load.WaitReady = time.Second
	if _, err := draintest.Test(t.Context(), cfg); err == nil {
		t.Error("no server, and no error")
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
