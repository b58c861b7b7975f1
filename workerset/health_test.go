//go:build linux

package workerset_test

import (
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/handover-go/handover/workerset"
)

// TestHealthy: workers are asked on a socket that they can be asked on, and nobody is blamed
// while somebody else may decide.
func TestHealthy(t *testing.T) {
	t.Parallel()
	udp := func(c *workerset.Config) {
		pc, err := net.ListenUDP("udp", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
		if err != nil {
			t.Fatal(err)
		}
		f, err := pc.File()
		pc.Close()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		c.Sockets["dns"] = int(f.Fd())
		c.Groups[0].Sockets = []string{"dns", "http"}
	}
	asks := func(h *harness, path string) string {
		if err := h.set.Healthy(h.ctx(), map[string]string{"web": path}); err != nil {
			return err.Error()
		}
		return ""
	}
	h := newSet(t, nil).serve()
	if got := asks(h, "/"); got != "" {
		t.Error(got)
	}
	if got := asks(h, "/ready"); !strings.Contains(got, "worker web/1") || !strings.Contains(got, "/ready answers 503") {
		t.Error(got)
	}
	if err := h.set.Healthy(h.ctx(), map[string]string{"other": "/ready"}); err != nil {
		t.Errorf("asked of another group: %v", err)
	}
	e := h.yield()
	if got := asks(h, "/"); got != "" {
		t.Errorf("given away: %s", got)
	}
	e.Close()
	h.set.Resume()
	if got := asks(h, "/ready"); got == "" {
		t.Error("after that nobody is asked")
	}
	h.stop()

	h = newForeign(t, "", func(c *workerset.Config) {
		udp(c)
		c.Groups[0].Env = []string{foreign("serve")}
	}).serve()
	if got := asks(h, "/"); got != "" {
		t.Errorf("a program: %s", got)
	}
}

// TestHealthyUnix: of programs on unix sockets it can't be found out who has answered.
func TestHealthyUnix(t *testing.T) {
	t.Parallel()
	fd, err := syscall.Socket(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrUnix{Name: t.TempDir() + "/s"}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 8); err != nil {
		t.Fatal(err)
	}
	h := newForeign(t, "catch;notify READY=1;term;exit 0", func(c *workerset.Config) { c.Sockets["http"] = fd }).serve()
	if err := h.set.Healthy(h.ctx(), map[string]string{"web": "/"}); err != nil {
		t.Error(err)
	}
}
