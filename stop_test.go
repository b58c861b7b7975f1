package handover_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// haproxy starts HAProxy in front of two services, with checks and without a second
// try, and returns its address.
func haproxy(t *testing.T, one, two string) string {
	t.Helper()
	bin, err := exec.LookPath("haproxy")
	if err != nil {
		t.Skip("haproxy is not installed (Debian: apt-get install haproxy)")
	}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	conf := filepath.Join(t.TempDir(), "haproxy.cfg")
	err = os.WriteFile(conf, fmt.Appendf(nil, `
defaults
  mode http
  retries 0
  timeout connect 5s
  timeout client 60s
  timeout server 60s
frontend clients
  bind fd@3
  default_backend services
backend services
  option httpchk GET /ready
  timeout check 10s # of a service on a busy machine
  default-server check inter 200ms fall 2 rise 1
  server one %s
  server two %s
`, one, two), 0o600)
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(bin, "-db", "-q", "-f", conf)
	cmd.ExtraFiles = []*os.File{f}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(out.String())
		}
	})
	return ln.Addr().String()
}

// TestStopBehindBalancer: of two services behind a load balancer one stops, and no
// request fails: readiness fails first, and the service goes on until the balancer has
// noticed.
func TestStopBehindBalancer(t *testing.T) {
	t.Parallel() // most of it is waiting
	control := filepath.Join(t.TempDir(), "control")
	one := startService(t, 2, "TEST_STOP_DELAY=3s", "TEST_CONTROL="+control)
	two := startService(t, 2)
	l, err := load.Start(t.Context(), load.Config{
		Addr: haproxy(t, one.addr, two.addr), Rate: 100, WaitReady: 10 * time.Second, SlowMS: 100,
		Clients: map[load.Kind]int{load.New: 4, load.Slow: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	answered(t, l, one.worker())
	answered(t, l, two.worker())
	if got := readiness(t, control); got != http.StatusOK {
		t.Errorf("readiness %d", got)
	}
	one.signal(syscall.SIGTERM)
	one.await(has("the workers serve on for a while"))
	if got := readiness(t, control); got != http.StatusServiceUnavailable {
		t.Errorf("readiness %d while it stops", got)
	}
	<-one.exited
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.WaitRequests(ctx, 50); err != nil {
		t.Error(err)
	}
	check(t, l)
	two.stop()
}

// worker is how a service's first worker answers.
func (s *service) worker() string {
	s.t.Helper()
	resp, err := http.Get("http://" + s.addr + "/")
	if err != nil {
		s.t.Fatal(err)
	}
	resp.Body.Close()
	return resp.Header.Get("X-Worker")
}

// readiness asks the control socket.
func readiness(t *testing.T, path string) int {
	t.Helper()
	client := http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", path)
		},
	}}
	resp, err := client.Get("http://handover/v1/ready")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	return resp.StatusCode
}
