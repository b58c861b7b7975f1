//go:build linux

package upgrader

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
)

// echo is an actor that answers datagrams with its pid and what it has read, until
// it is interrupted.
func (s *service) echo(spec listen.Spec) (func() error, func(error)) {
	c, err := s.up.Packet(spec.Name, spec.Network, spec.Addr)
	check(err)
	return func() error {
		defer c.Close()
		b := make([]byte, 100)
		for {
			n, from, err := c.ReadFrom(b)
			if errors.Is(err, os.ErrDeadlineExceeded) {
				return nil
			}
			check(err)
			_, err = c.WriteTo(fmt.Appendf(nil, "%d %s", os.Getpid(), b[:n]), from)
			check(err)
		}
	}, func(error) { _ = c.SetReadDeadline(time.Unix(1, 0)) }
}

// greeter says its pid to every connection.
type greeter struct{}

func (greeter) Serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		fmt.Fprint(c, os.Getpid())
		c.Close()
	}
}

func (greeter) Shutdown(context.Context) error { return nil }

// strict is a client that sends numbered datagrams.
type strict struct {
	t    *testing.T
	conn net.Conn
	sent int
	pids []int // who has answered, by number; 0 for nobody
}

func newStrict(t *testing.T, network, addr string) *strict {
	t.Helper()
	d := net.Dialer{}
	if network == "unixgram" { // without an address it can't be answered
		d.LocalAddr = &net.UnixAddr{Name: filepath.Join(filepath.Dir(addr), "client"), Net: network}
	}
	c, err := d.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &strict{t: t, conn: c}
}

// ask sends a few at once and waits for their answers.
func (c *strict) ask() error {
	const atOnce = 4
	for range atOnce {
		if _, err := c.conn.Write([]byte(strconv.Itoa(c.sent))); err != nil {
			return err
		}
		c.sent++
		c.pids = append(c.pids, 0)
	}
	b := make([]byte, 100)
	for range atOnce {
		_ = c.conn.SetReadDeadline(deadline().at())
		n, err := c.conn.Read(b)
		if err != nil {
			return fmt.Errorf("%d were sent, not all answered: %w", c.sent, err)
		}
		if err := c.take(string(b[:n])); err != nil {
			return err
		}
	}
	return nil
}

func (c *strict) take(answer string) error {
	pid, number, _ := strings.Cut(answer, " ")
	p, _ := strconv.Atoi(pid)
	i, err := strconv.Atoi(number)
	if err != nil || p == 0 || i >= c.sent || c.pids[i] != 0 {
		return fmt.Errorf("%q is no answer, or not the first", answer)
	}
	c.pids[i] = p
	return nil
}

// until asks until somebody has done what is in done, and a few times more.
func (c *strict) until(done <-chan struct{}) error {
	for {
		if err := c.ask(); err != nil {
			return err
		}
		select {
		case <-done:
			return c.ask()
		default:
		}
	}
}

// over checks, when the service has ended, that nothing was answered twice.
func (c *strict) over() {
	c.t.Helper()
	rc, err := c.conn.(syscall.Conn).SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 100)
	_ = rc.Control(func(fd uintptr) {
		if n, _, _ := unix.Recvfrom(int(fd), b, unix.MSG_DONTWAIT); n > 0 {
			c.t.Errorf("answered twice: %q", b[:n])
		}
	})
	for i, p := range c.pids {
		if p == 0 {
			c.t.Errorf("datagram %d of %d was not answered", i, c.sent)
		}
	}
}

// answerers are the processes that have answered, in their order.
func (c *strict) answerers() (pids []int) {
	for _, p := range c.pids {
		if len(pids) == 0 || pids[len(pids)-1] != p {
			pids = append(pids, p)
		}
	}
	return pids
}

// packetSite is a service with one socket for packets, "p".
func packetSite(t *testing.T, network string, set settings) (s *site, addr func(*running) string) {
	t.Helper()
	s = newSite(t, set)
	set.Listen = []string{"p=" + network + "://127.0.0.1:0", "tcp://127.0.0.1:0"}
	if network == "unixgram" {
		set.Listen[0] = "p=unixgram://" + filepath.Join(s.dir, "p")
	}
	s.configure(set)
	return s, func(r *running) string { return r.stats().Addrs["p"] }
}

// Over ten upgrades, and some that fail, every datagram is answered exactly once.
func TestPacketUpgrades(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"udp", "unixgram"} {
		t.Run(network, func(t *testing.T) {
			t.Parallel()
			s, addr := packetSite(t, network, settings{})
			r := s.start()
			before := r.stats()
			c := newStrict(t, network, addr(r))
			done, asked := make(chan struct{}), make(chan error, 1)
			go func() { asked <- c.until(done) }()
			good, err := os.ReadFile(filepath.Join(s.dir, "settings"))
			if err != nil {
				t.Fatal(err)
			}
			pids := []int{r.pid}
			for i := range 10 {
				if i%3 == 1 {
					s.put("settings", []byte(strings.Replace(string(good), `"Mode":""`, `"Mode":"fail"`, 1)), 0o600)
					if a := r.tryUpgrade(r.pid, patience); !a.is("rejected") {
						t.Errorf("%+v", a)
					}
					s.put("settings", good, 0o600)
				}
				r.upgrade()
				pids = append(pids, r.pid)
			}
			close(done)
			if err := <-asked; err != nil {
				t.Error(err)
			}
			// Each serves only between its commit and its drain; two may at the same time.
			for _, p := range c.answerers() {
				if i := slices.Index(pids, p); i < 0 {
					t.Errorf("process %d answered, which never decided; those that did: %v", p, pids)
				}
			}
			if last := c.pids[len(c.pids)-1]; last != r.pid {
				t.Errorf("process %d answered last, not %d", last, r.pid)
			}
			until(t, "no more descriptors than in the first process", func() bool {
				return len(r.stats().FDs) <= len(before.FDs)+2 // see TestTwentyUpgrades
			})
			r.stop()
			c.over()
			t.Logf("%d datagrams, %d processes", c.sent, len(pids))
			if _, err := os.Lstat(filepath.Join(s.dir, "p")); err == nil {
				t.Error("the socket's file is left")
			}
		})
	}
}

// Before the commit the new process reads nothing, and writes what it likes.
func TestPacketsBeforeCommit(t *testing.T) {
	t.Parallel()
	s, addr := packetSite(t, "udp", settings{Yield: "wait"})
	r := s.start()
	c := newStrict(t, "udp", addr(r))
	old := r.pid
	answers := make(chan answer, 1)
	go func() { answers <- r.tryUpgrade(old, patience) }()
	r.await("waits") // the new process is prepared
	for range 20 {
		if err := c.ask(); err != nil {
			t.Fatal(err)
		}
	}
	if got := c.answerers(); !slices.Equal(got, []int{old}) {
		t.Errorf("before the commit %v answered, not %d", got, old)
	}
	if _, err := r.ask(t.Context(), old, "/release"); err != nil {
		t.Error(err)
	}
	r.awaitMain(0)
	if a := <-answers; a.Err != "" {
		t.Fatalf("%+v", a)
	}
	r.awaitEnd(old)
	if err := c.ask(); err != nil {
		t.Fatal(err)
	}
	if got := c.answerers(); !slices.Equal(got, []int{old, r.pid}) {
		t.Errorf("%v answered, not %d and %d", got, old, r.pid)
	}
	r.stop()
	c.over()
}

// openPacketsAndFiles is a part of TestLife.
func openPacketsAndFiles(t *testing.T, up *Upgrader, dir string) {
	t.Helper()
	var op *net.OpError
	if _, err := up.Listen("p", "udp", "127.0.0.1:0"); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), "use Packet") {
		t.Errorf("Listen of a packet socket: %v", err)
	}
	if _, err := up.Packet("p", "tcp", "127.0.0.1:0"); !errors.Is(err, ErrKind) || !strings.Contains(err.Error(), "use Listen") {
		t.Errorf("Packet of a listening socket: %v", err)
	}
	if _, err := up.Packet("p", "upd", "127.0.0.1:0"); err == nil || !strings.Contains(err.Error(), `unknown network "upd"`) {
		t.Errorf("%v", err)
	}
	c, err := up.Packet("p", "udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
		t.Error(err)
	}
	if n, _, err := c.ReadFrom(make([]byte, 9)); n != 1 || err != nil { // a first generation does not wait
		t.Error(n, err)
	}
	c.Close()
	if _, _, err := c.ReadFrom(make([]byte, 9)); !errors.Is(err, net.ErrClosed) || !errors.As(err, &op) {
		t.Errorf("after Close: %v", err)
	}
	if s := up.sockets["p"]; s.Addr() == nil || s.Fd() < 0 {
		t.Error("closing the connection has closed the socket")
	} else if _, err := s.Listener(); !errors.Is(err, ErrKind) {
		t.Errorf("a listener on it: %v", err)
	}

	path := filepath.Join(dir, "log")
	f, err := up.File("log", func() (*os.File, error) { return os.Create(path) })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString("x"); err != nil {
		t.Error(err)
	}
	f.Close()
	if s := up.sockets["log"]; s.Addr() != nil || s.Fd() < 0 {
		t.Error("not a file that is open")
	}
	never := func() (*os.File, error) { t.Error("opened"); return nil, os.ErrInvalid }
	for name, want := range map[string]string{
		"log":  "the name is taken already by log=file://",
		"p":    "the name is taken already by p=udp://127.0.0.1:0",
		"":     `file name ""`,
		"a:b":  `file name "a:b": ':' is not allowed`,
		"none": `open file "none": invalid argument`,
		"miss": `open file "miss": open ` + path + `/x: not a directory`,
	} {
		open := never
		switch name {
		case "none":
			open = func() (*os.File, error) { return nil, nil }
		case "miss":
			open = func() (*os.File, error) { return os.Open(path + "/x") }
		}
		if _, err := up.File(name, open); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q:\n got %v\nwant %s", name, err, want)
		}
	}
	_, err = up.File("race", func() (*os.File, error) {
		_, err := up.File("race", func() (*os.File, error) { return os.Open(path) })
		if err != nil {
			t.Error(err)
		}
		return os.Open(path)
	})
	if err == nil || !strings.Contains(err.Error(), "the name is taken already by race=file://") {
		t.Error(err)
	}
}
