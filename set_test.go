package handover_test

import (
	"context"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// TestRollAndScaleUnderLoad uses a worker set as a library user would who brings
// a parent of his own: no upgrader, no command.
func TestRollAndScaleUnderLoad(t *testing.T) {
	ln, fd := heldSocket(t)
	set, err := workerset.New(workerset.Config{
		Name:    "set",
		Program: workerset.Program{Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")},
		Groups:  []workerset.Group{{Name: "web", Count: 1}},
		Sockets: map[string]int{"http": fd},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- set.Run() }()
	defer func() {
		set.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := set.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	l, err := load.Start(ctx, load.Config{
		Addr: ln.Addr().String(), Rate: 40, WaitReady: 10 * time.Second, SlowMS: 100, StreamMS: 100, UploadMS: 100,
		Clients: map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1, load.Stream: 1},
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{8, 2} {
		if err := set.Scale(ctx, "web", n); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitRequests(ctx, 50); err != nil {
			t.Fatal(err)
		}
		if got := serving(t, set); got != n {
			t.Errorf("%d workers serve, not %d", got, n)
		}
	}
	for range 3 {
		if err := set.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitRequests(ctx, 20); err != nil {
			t.Fatal(err)
		}
	}
	check(t, l)
}

func serving(t *testing.T, set *workerset.Set) int {
	t.Helper()
	st, err := set.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, w := range st.Groups[0].Workers {
		if w.State == "serving" {
			n++
		}
	}
	return n
}

// heldSocket is a listening socket and its descriptor, as a parent holds it.
func heldSocket(t testing.TB) (net.Listener, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	if err := rc.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || fd < 0 {
		t.Fatal(err)
	}
	ln.Close()
	t.Cleanup(func() { unix.Close(fd) })
	return ln, fd
}

// TestWrk has a client that nobody here wrote report socket errors.
func TestWrk(t *testing.T) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		t.Skip("wrk is not installed (Debian: apt-get install wrk)")
	}
	s := startService(t, 2)
	// Few enough connections for the ports that may be in TIME_WAIT.
	cmd := exec.Command(wrk, "-t1", "-c4", "-d3s", "-H", "Connection: close", "http://"+s.addr+"/")
	done := make(chan []byte, 1)
	go func() {
		out, err := cmd.CombinedOutput()
		if err != nil {
			out = append(out, err.Error()...)
		}
		done <- out
	}()
	var out []byte
	for upgrades := 0; out == nil; upgrades++ {
		select {
		case out = <-done:
			t.Logf("%d upgrades\n%s", upgrades, out)
			if upgrades < 3 {
				t.Errorf("only %d upgrades while wrk ran", upgrades)
			}
		default:
			s.upgrade()
		}
	}
	if match(string(out), `(Socket errors|Non-2xx)`) != "" || match(string(out), `(\d+) requests in`) == "" {
		t.Error("wrk saw errors, or nothing")
	}
	s.stop()
}

// A worker of the sets above is this test binary again. One of a service with groups
// goes the way of a library user's.
func init() {
	if worker.Inherited() && os.Getenv("TEST_GROUPS") == "" {
		slog.SetDefault(slog.New(slog.NewTextHandler(os.Stderr, nil)))
		maxConns, _ := strconv.Atoi(os.Getenv("TEST_MAX_CONNS"))
		worker.Main(worker.Config{MaxConns: maxConns}, testApp)
	}
}
