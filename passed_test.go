package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/moving"
	"github.com/handover-go/handover/workerset"
)

// In these tests the queue by which connections move is in the test's hands, or nobody
// takes what is in it.

// heldSet is a set of workers that serve a socket, whose queue is the test's, too.
type heldSet struct {
	t     *testing.T
	set   *workerset.Set
	ln    net.Listener // accepts when no worker does
	queue *moving.Queue
	give  int // its end that gives
}

func startHeldSet(t *testing.T, count int) *heldSet {
	t.Helper()
	_, fd := heldSocket(t)
	give, take, err := moving.Pair()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(give); unix.Close(take) })
	h := &heldSet{t: t, give: give}
	f := os.NewFile(uintptr(dup(t, fd)), "")
	defer f.Close()
	if h.ln, err = net.FileListener(f); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.ln.Close() })
	if h.queue, err = moving.Open(give, take); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.queue.Close)
	h.set, err = workerset.New(workerset.Config{
		Name:    "set",
		Program: workerset.Program{Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")},
		Groups: []workerset.Group{{Name: "web", Count: count,
			Queues: map[string]workerset.Queue{"http": {Give: give, Take: take}}}},
		Sockets: map[string]int{"http": fd},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- h.set.Run() }()
	t.Cleanup(func() {
		h.set.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := h.set.Ready(ctx); err != nil {
		t.Fatal(err)
	}
	return h
}

func dup(t *testing.T, fd int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// pids are those of the workers.
func (h *heldSet) pids() (pids []int) {
	h.t.Helper()
	st, err := h.set.Status(h.t.Context())
	if err != nil {
		h.t.Fatal(err)
	}
	for _, w := range st.Groups[0].Workers {
		pids = append(pids, w.Pid)
	}
	return pids
}

// freeze stops a process, and returns when all of it has stopped.
func freeze(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) }) // of a test that fails
	until(t, 10*time.Second, func() string {
		b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if state := match(string(b), `\) (\S) `); err != nil || state != "T" {
			return fmt.Sprintf("state %q, %v", state, err)
		}
		return ""
	})
}

func thaw(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
}

// queued is a client whose connection was accepted and put into the queue.
func (h *heldSet) queued(ln net.Listener, sent string) keeper {
	h.t.Helper()
	k := connect(h.t, ln.Addr().String())
	c, err := ln.Accept()
	if err != nil {
		h.t.Fatal(err)
	}
	defer c.Close()
	h.send(c.(syscall.Conn), sent)
	return k
}

func (h *heldSet) send(c syscall.Conn, sent string) {
	h.t.Helper()
	h.queue.AwaitRoom(time.Now().Add(10 * time.Second))
	raw, err := c.SyscallConn()
	if err == nil {
		cerr := raw.Control(func(fd uintptr) { err = h.queue.Send(int(fd), moving.Message{Held: []byte(sent)}) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		h.t.Fatal(err)
	}
}

// TestQueuedForDead: what is queued outlives a worker that does not take it, and is served
// by its replacement, byte by byte as it came.
func TestQueuedForDead(t *testing.T) {
	h := startHeldSet(t, 1)
	old := h.pids()[0]
	freeze(t, old)
	clients := []keeper{h.queued(h.ln, ""), h.queued(h.ln, "GE"), h.queued(h.ln, "GET / HTTP/1.1\r\nHos")}
	if err := syscall.Kill(old, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for i, rest := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "T / HTTP/1.1\r\nHost: x\r\n\r\n", "t: x\r\n\r\n"} {
		if _, err := io.WriteString(clients[i], rest); err != nil {
			t.Fatal(err)
		}
		if err := clients[i].answer("GET", "", "?"); err != nil {
			t.Errorf("connection %d: %v", i, err)
		}
		clients[i].Close()
	}
}

// TestQueuedByLaterVersion: what a later version adds to a message is skipped. One that can't
// be read costs its connection, and nobody else's.
func TestQueuedByLaterVersion(t *testing.T) {
	h := startHeldSet(t, 1)
	pid := h.pids()[0]
	freeze(t, pid)
	queued := func(message string) keeper {
		t.Helper()
		k := connect(t, h.ln.Addr().String())
		c, err := h.ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		f, err := c.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if err := unix.Sendmsg(h.give, []byte(message), unix.UnixRights(int(f.Fd())), nil, 0); err != nil {
			t.Fatal(err)
		}
		return k
	}
	other := queued("h\x02" + "what is this?")
	later := queued("h\x01\x0c\x80" + "\x00\x00\x00\x00" + "\x00\x01\x02\x03" + "GET / HT")
	thaw(t, pid)
	if _, err := io.WriteString(later, "TP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := later.answer("GET", "", "?"); err != nil {
		t.Error(err)
	}
	later.Close()
	if got := rest(other); got != "" {
		t.Errorf("the one that can't be read got %q", got)
	}
}

// TestStrangersInQueue: a worker serves nobody who has not come to its own socket, and
// nobody who has gone; what is behind them in the queue is served.
func TestStrangersInQueue(t *testing.T) {
	h := startHeldSet(t, 1)
	pid := h.pids()[0]
	freeze(t, pid)
	other, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	stranger := h.queued(other, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
	gone := h.queued(h.ln, "GET / HT")
	_ = gone.Conn.(*net.TCPConn).SetLinger(0) // RST
	gone.Close()
	last := h.queued(h.ln, "GET / HT")
	thaw(t, pid)

	if _, err := io.WriteString(last, "TP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if err := last.answer("GET", "", "?"); err != nil {
		t.Error(err)
	}
	if got := rest(stranger); got != "" {
		t.Errorf("a connection of another socket got %q", got)
	}
	// What is no connection at all.
	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer packets.Close()
	h.send(other.(syscall.Conn), "")
	h.send(packets.(syscall.Conn), "")
	until(t, 10*time.Second, func() string {
		if h.queue.Pending() {
			return "the queue is not empty"
		}
		return ""
	})
	if who, err := last.ask(); err != nil || !has("pid="+strconv.Itoa(pid))(who) {
		t.Errorf("%q, %v", who, err)
	}
	last.Close()
}

// gate is a named pipe that an app waits for at its start: who opens it for reading waits
// until it is open for writing (fifo(7)).
type gate struct {
	path string
	f    *os.File
}

func newGate(t *testing.T) *gate {
	t.Helper()
	g := &gate{path: filepath.Join(t.TempDir(), "gate")}
	if err := unix.Mkfifo(g.path, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.open(t) }) // nobody is left waiting
	return g
}

func (g *gate) open(t *testing.T) {
	t.Helper()
	var err error
	if g.f == nil {
		if g.f, err = os.OpenFile(g.path, os.O_RDWR, 0); err != nil {
			t.Error(err)
		}
	}
}

func (g *gate) close() {
	g.f.Close()
	g.f = nil
}

// TestNobodyTakes: workers that drain serve on what nobody takes, more than the queue
// holds, for as long as their replacements do not come, and then it moves.
func TestNobodyTakes(t *testing.T) {
	gate := newGate(t)
	gate.open(t)
	s := startService(t, 2, "TEST_GATE="+gate.path)
	gate.close()
	old := s.workers()
	clients := keep(t, s.addr, 300)
	from := s.mark()
	for _, pid := range old {
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
	}
	ask := func(ok func(pid string) bool) {
		t.Helper()
		for i, c := range clients {
			who, err := c.ask()
			if pid := match(who, `pid=(\d+)`); err != nil || !ok(pid) {
				t.Fatalf("connection %d: %q, %v", i, who, err)
			}
		}
	}
	isOld := func(pid string) bool {
		return pid == strconv.Itoa(old[0]) || pid == strconv.Itoa(old[1])
	}
	if _, err := s.waitFrom(from, has("msg=draining")); err != nil { // one of them: the other one accepts until it is replaced
		t.Fatal(err)
	}
	for range 3 {
		ask(isOld)
	}
	gate.open(t)
	for _, pid := range old {
		s.exits(from, strconv.Itoa(pid))
	}
	ask(func(pid string) bool { return !isOld(pid) })
	for _, c := range clients {
		c.Close()
	}
	s.moved()
	s.stop()
}

// TestTakersHang: what a worker has given away, and nobody takes since the one that should
// hangs, it serves itself.
func TestTakersHang(t *testing.T) {
	gate := newGate(t)
	gate.open(t)
	s := startService(t, 2, "TEST_GATE="+gate.path)
	gate.close()
	byPID := map[int][]keeper{}
	for _, c := range keep(t, s.addr, 60) {
		who, err := c.ask()
		pid, perr := strconv.Atoi(match(who, `pid=(\d+)`))
		if err != nil || perr != nil {
			t.Fatalf("%q, %v", who, err)
		}
		byPID[pid] = append(byPID[pid], c)
	}
	drains, hangs := s.workers()[0], s.workers()[1]
	if len(byPID[hangs]) > len(byPID[drains]) { // more than the queue holds
		drains, hangs = hangs, drains
	}
	clients := byPID[drains]
	freeze(t, hangs)
	from := s.mark()
	if err := syscall.Kill(drains, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has("no process takes connections")); err != nil {
		t.Fatal(err)
	}
	for i, c := range clients {
		if who, err := c.ask(); err != nil || !has("pid="+strconv.Itoa(drains))(who) {
			t.Fatalf("connection %d: %q, %v", i, who, err)
		}
	}
	thaw(t, hangs)
	gate.open(t)
	s.exits(from, strconv.Itoa(drains))
	for i, c := range clients {
		if who, err := c.ask(); err != nil || has("pid="+strconv.Itoa(drains))(who) {
			t.Fatalf("connection %d: %q, %v", i, who, err)
		}
	}
	s.moved()
	s.stop()
}
