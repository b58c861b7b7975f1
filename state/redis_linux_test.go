package state

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// store is a Redis of the test's own.
type store struct {
	t      *testing.T
	socket string
	cmd    *exec.Cmd
	ended  chan struct{}
}

func newStore(t *testing.T) *store {
	t.Helper()
	if _, err := exec.LookPath("redis-server"); err != nil {
		t.Skip("redis-server is not installed")
	}
	dir, err := os.MkdirTemp("", "redis") // a socket's path is short
	must(t, err)
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &store{t: t, socket: filepath.Join(dir, "socket")}
	t.Cleanup(func() { s.kill() })
	return s
}

// start runs it, with one key.
func (s *store) start(value string) {
	s.t.Helper()
	s.cmd = exec.Command("redis-server", "--port", "0", "--unixsocket", s.socket, "--save", "", "--appendonly", "no", "--dir", filepath.Dir(s.socket))
	must(s.t, s.cmd.Start())
	cmd, ended := s.cmd, make(chan struct{})
	s.ended = ended
	go func() { defer close(ended); _ = cmd.Wait() }()
	until(s.t, "a Redis", func() bool {
		_, err := s.do("PING")
		return err == nil
	})
	s.set(value)
}

func (s *store) do(args ...string) (string, error) {
	ctx, cancel := context.WithTimeout(s.t.Context(), patience)
	defer cancel()
	return redis(ctx, s.socket, args...)
}

func (s *store) set(value string) {
	s.t.Helper()
	_, err := s.do("SET", "truth", value)
	must(s.t, err)
}

func (s *store) signal(sig syscall.Signal) {
	s.t.Helper()
	must(s.t, s.cmd.Process.Signal(sig))
}

func (s *store) kill() {
	if s.cmd != nil {
		_ = s.cmd.Process.Kill()
		<-s.ended
		s.cmd = nil
	}
}

// TestRedis: the truth is a key of a Redis that two hosts watch, each by an agent of its
// own. It is killed, cut off and brought back: reads go on with the value's age known, and
// then all have the same again.
func TestRedis(t *testing.T) {
	db := newStore(t)
	db.start("v1")
	hosts := []*host{newHost(t, "redis", db.socket, 2), newHost(t, "redis", db.socket, 2)}
	var readers []*reader
	for _, h := range hosts {
		readers = append(readers, h.read())
	}
	converge := func(want string) {
		t.Helper()
		for _, h := range hosts {
			h.text(want)
		}
	}
	// doubt waits until everybody knows that nobody knows, and for how long.
	doubt := func(want, why string, age time.Duration) {
		t.Helper()
		for _, h := range hosts {
			h.everywhere(want+" in doubt", func(v view) bool {
				return v.Text == want && strings.Contains(v.Err, why) && v.AgeMS >= float64(age.Milliseconds())
			})
		}
	}
	converge("v1")
	for n := 2; n < 5; n++ {
		db.set(fmt.Sprint("v", n))
		converge(fmt.Sprint("v", n))
	}

	// Killed, and everything is replaced that there is.
	db.kill()
	killed := time.Now()
	doubt("v4", "the source fails", 100*time.Millisecond)
	hosts[0].kill("agent", syscall.SIGKILL)
	hosts[0].kill("web", syscall.SIGTERM)
	hosts[1].kill("web", syscall.SIGTERM)
	hosts[1].kill("agent", syscall.SIGTERM)
	// Those that have come since know how old it is all the same.
	doubt("v4", "the source fails", time.Since(killed))
	db.start("v5")
	converge("v5")

	// Cut off: it takes connections and does not answer.
	db.signal(syscall.SIGSTOP)
	cut := time.Now()
	doubt("v5", "the source fails", 100*time.Millisecond)
	hosts[0].kill("web", syscall.SIGTERM)
	doubt("v5", "the source fails", time.Since(cut))
	db.signal(syscall.SIGCONT)
	converge("v5")
	db.set("v6")
	converge("v6")

	// Empty.
	_, err := db.do("DEL", "truth")
	must(t, err)
	doubt("v6", "there is no such key", 0)
	db.set("v7")
	converge("v7")
	for _, r := range readers {
		r.end()
		t.Logf("%d reads", r.reads)
	}
}
