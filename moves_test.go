package handover_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// These are tests of connections that clients keep while processes come and go: none
// is closed, idle or not, and none is told that it will be.

// keeping are clients of which most keep their connections, with 100 ms from one
// request to the next.
var keeping = map[load.Kind]int{load.KeepAlive: 40, load.New: 2, load.Slow: 1}

const keepingRate = 10

// keep starts them.
func (s *service) keep() *load.Load {
	s.t.Helper()
	return s.loadOf(keepingRate, keeping)
}

// kept is check, and the answers must be of so many processes or more.
func kept(t *testing.T, l *load.Load, processes int) {
	t.Helper()
	check(t, l)
	if n := len(l.Stop().Workers); n < processes {
		t.Errorf("%d processes answered, want at least %d", n, processes)
	}
}

func TestKeptOverUpgrades(t *testing.T) {
	s := startService(t, 2)
	l := s.keep()
	for i := range 20 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	kept(t, l, 21)
	s.stop()
}

func TestKeptOverUpgradesUnix(t *testing.T) {
	path := filepath.Join(t.TempDir(), "http")
	s := startService(t, 2, "TEST_LISTEN=http=unix://"+path)
	s.addr = "unix:" + path
	l := s.keep()
	for i := range 5 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	kept(t, l, 6)
	s.stop()
}

// Workers that are told to end by whoever has their pid, and workers that fail.
func TestKeptWhenWorkersEnd(t *testing.T) {
	s := startService(t, 2)
	l := s.keep()
	for range 20 {
		from := s.mark()
		pid := s.workers()[0]
		if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		s.exits(from, fmt.Sprint(pid))
		goesOn(t, l)
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 20 {
		from := s.mark()
		resp, err := client.Get("http://" + s.addr + "/fail")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		s.exits(from, match(resp.Header.Get("X-Worker"), `pid=(\d+)`))
		goesOn(t, l)
	}
	kept(t, l, 20)
	s.stop()
}

// goesOn waits until those who serve now have answered a little.
func goesOn(t *testing.T, l *load.Load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if err := l.WaitRequests(ctx, 8); err != nil {
		t.Fatal(err)
	}
}

// exits waits until a worker has.
func (s *service) exits(from int, pid string) {
	s.t.Helper()
	if _, err := s.waitFrom(from, has(`msg="worker exited"`, "pid="+pid+" ")); err != nil {
		s.t.Fatal(err)
	}
}

// A set is rolled, and scaled down to one worker and up again.
func TestKeptOverRollsAndScaling(t *testing.T) {
	h := startHeldSet(t, 4)
	set := h.set
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	l, err := load.Start(ctx, load.Config{
		Addr: h.ln.Addr().String(), Rate: keepingRate, WaitReady: 10 * time.Second, SlowMS: 100, Clients: keeping,
	})
	if err != nil {
		t.Fatal(err)
	}
	for range 3 {
		for _, n := range []int{1, 4} {
			if err := set.Scale(ctx, "web", n); err != nil {
				t.Fatal(err)
			}
			if err := l.WaitRequests(ctx, 100); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := set.Scale(ctx, "web", 2); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		if err := set.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		if err := l.WaitRequests(ctx, 50); err != nil {
			t.Fatal(err)
		}
	}
	kept(t, l, 21)
}

// All workers of the next generation get some of the connections.
func TestKeptAreSpread(t *testing.T) {
	s := startService(t, 2)
	l := s.loadOf(keepingRate, map[load.Kind]int{load.KeepAlive: 40}) // only these move
	for i := range 5 {
		s.upgrade()
		for _, worker := range []string{"web/1", "web/2"} {
			generation := fmt.Sprintf("generation=%d ", i+2)
			ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
			defer cancel()
			if err := l.WaitWorker(ctx, func(w string) bool { return has(worker+" ", generation)(w) }); err != nil {
				t.Fatalf("%s got no connection in %s: %v", worker, generation, err)
			}
		}
	}
	kept(t, l, 11) // of the first two, one may have had none
	s.stop()
}

// moved counts the connections that workers, so far, have given away in their drains.
// None may have ended in one.
func (s *service) moved() (n int) {
	s.t.Helper()
	for line := range strings.Lines(s.tail(1 << 20)) {
		if !has("msg=drained")(line) {
			continue
		}
		if !has("finished=0 ", "closed_idle=0 ", "cut=0 ")(line) {
			s.t.Error(strings.TrimSpace(line))
		}
		m, _ := strconv.Atoi(match(line, `moved=(\d+)`))
		n += m
	}
	return n
}

// TestWrkKeepAlive has a client that nobody here wrote keep 64 connections. It does
// not tell of those that it makes anew when an answer asks for that; the workers do.
func TestWrkKeepAlive(t *testing.T) {
	wrk, err := exec.LookPath("wrk")
	if err != nil {
		t.Skip("wrk is not installed (Debian: apt-get install wrk)")
	}
	s := startService(t, 2)
	var out strings.Builder
	cmd := exec.CommandContext(t.Context(), wrk, "-t1", "-c64", "-d120s", "http://"+s.addr+"/")
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		s.upgrade()
	}
	if n := s.moved(); n < 64 {
		t.Errorf("%d connections have moved, want each of 64, and again and again", n)
	}
	if err := cmd.Process.Signal(os.Interrupt); err != nil { // it tells what it has seen
		t.Fatal(err)
	}
	err = cmd.Wait()
	t.Log(out.String())
	if err != nil || match(out.String(), `(Socket errors|Non-2xx)`) != "" || match(out.String(), `([1-9]\d*) requests in`) == "" {
		t.Error("wrk saw errors, or nothing")
	}
	s.stop()
}

// A worker whose descriptors run out takes no more connections; who has the rest goes
// on serving them, and gives them away when there is room.
func TestScarceDescriptors(t *testing.T) {
	s := startServiceBy(t, func(bin string) *exec.Cmd {
		return exec.Command("sh", "-c", `ulimit -n 120 && exec "$0"`, bin)
	}, 1, "TEST_APP=plain")
	clients := keep(t, s.addr, 90)
	old := s.workers()[0]
	from := s.mark()
	s.upgrade()
	if _, err := s.waitFrom(from, has("descriptors are running out")); err != nil {
		t.Fatal(err)
	}
	byOld := 0
	for _, c := range clients {
		who, err := c.ask()
		if err != nil {
			t.Fatal(err)
		}
		if who == strconv.Itoa(old) {
			byOld++
		}
	}
	if byOld == 0 || byOld == len(clients) {
		t.Errorf("%d of %d are with the old worker", byOld, len(clients))
	}
	for _, c := range clients[:80] {
		c.Close()
	}
	// What is left has room.
	if _, err := s.waitFrom(from, has("worker exited", "pid="+strconv.Itoa(old)+" ", "exit status 0")); err != nil {
		t.Fatal(err)
	}
	for _, c := range clients[80:] {
		if who, err := c.ask(); err != nil || who == strconv.Itoa(old) {
			t.Errorf("%q, %v", who, err)
		}
	}
	s.stop()
}

// keeper is a client that keeps its connection, and asks once for each upgrade.
type keeper struct {
	net.Conn
	r *bufio.Reader
}

// ask returns who answered.
func (k keeper) ask() (who string, err error) {
	h, err := k.askAll()
	return h.Get("X-Worker"), err
}

// askAll returns an answer's header.
func (k keeper) askAll() (http.Header, error) {
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := k.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		return nil, err
	}
	resp, err := http.ReadResponse(k.r, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.Close {
		return nil, errors.New("the answer closes the connection")
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return nil, err
	}
	return resp.Header, k.checkHooks(resp.Header)
}

// checkHooks: a server that tells what its hooks know of the connection knows it all.
func (k keeper) checkHooks(h http.Header) error {
	if hooks, peer := h.Get("X-Hooks"), h.Get("X-Peer"); hooks != "" && (hooks != "ok" || peer != k.LocalAddr().String()) {
		return fmt.Errorf("to the server the connection of %s is that of %q, hooks: %s", k.LocalAddr(), peer, hooks)
	}
	return nil
}

func connect(t testing.TB, addr string) keeper {
	t.Helper()
	network := "tcp"
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		network, addr = "unix", path
	}
	c, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return keeper{c, bufio.NewReaderSize(c, 512)}
}

// keep connects clients that keep their connection, and have asked once.
func keep(t testing.TB, addr string, count int) []keeper {
	t.Helper()
	conns := make([]keeper, count)
	for i := range conns {
		conns[i] = connect(t, addr)
		if _, err := conns[i].ask(); err != nil {
			t.Fatal(err)
		}
	}
	return conns
}
