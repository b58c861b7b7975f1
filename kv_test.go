package handover_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// These are tests of connections of a protocol of its own, whose clients check the number and
// the content of every answer: none is lost, doubled or swapped, and no connection closes.

// kvUpgrades is how many there are in a test; TEST_KV_UPGRADES=100 is for by hand.
func kvUpgrades(t testing.TB) int {
	t.Helper()
	if s := os.Getenv("TEST_KV_UPGRADES"); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			t.Fatalf("TEST_KV_UPGRADES=%q", s)
		}
		return n
	}
	return 10
}

func TestKeyValueOverUpgrades(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			s := startService(t, 2, "TEST_APP=kv", "TEST_LISTEN="+kvListen(t, network))
			if network == "unix" {
				s.addr = "unix:" + match(s.await(has("msg=started")), `listen=\S*unix://([^\s,"]+)`)
			}
			keyValueOver(t, s)
		})
	}
}

// The same with one process and no workers.
func TestKeyValueSolo(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		t.Run(network, func(t *testing.T) {
			_, listen, _ := strings.Cut(kvListen(t, network), "=")
			s := startSolo(t, listen, "TEST_APP=kv")
			if network == "unix" {
				s.addr = "unix:" + s.addr
			}
			keyValueOver(t, s)
		})
	}
}

func kvListen(t *testing.T, network string) string {
	if network == "unix" {
		return "kv=unix://" + filepath.Join(t.TempDir(), "kv")
	}
	return "kv=tcp://127.0.0.1:0"
}

// keyValueOver upgrades a service whose clients go on, and stops it.
func keyValueOver(t *testing.T, s *service) {
	t.Helper()
	const clients = 30
	n := kvUpgrades(t)
	l := startKV(t, s.addr, clients)
	for range n {
		s.upgrade()
		l.answered(2)
	}
	answers, processes := l.stop()
	// Who serves is asked now and then, so that not every process has been.
	if processes <= n/2 {
		t.Errorf("%d processes answered in %d upgrades", processes, n)
	}
	t.Logf("%d upgrades, %d connections, %d answers of %d processes", n, clients, answers, processes)
	// At the stop clients are told.
	from := s.mark()
	if s.solo { // else the process before it, which drains, might be the one that reaps it
		until(t, 30*time.Second, func() string {
			b, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.parent()))
			if parent := match(string(b), `PPid:\s+(\d+)`); err != nil || parent != strconv.Itoa(os.Getpid()) {
				return fmt.Sprintf("its parent is %s, %v", parent, err)
			}
			return ""
		})
	}
	s.stop()
	l.dismissed()
	for i, line := range strings.Split(s.tail(1<<20), "\n") {
		if has("msg=drained")(line) && !(has(" cut=0 ", "closed_idle=0 ")(line) && (i >= from || has("finished=0 ")(line))) {
			t.Error(line)
		}
	}
}

// kvLoad are clients of the key-value server.
type kvLoad struct {
	t       *testing.T
	clients []*kvClient
	quit    chan struct{}
	wg      sync.WaitGroup
	once    sync.Once

	mu      sync.Mutex
	answers int
	pids    map[string]int // answers of each process
	failed  bool
	changed chan struct{}
}

// kvClient knows what it has set, and what it has asked.
type kvClient struct {
	net.Conn
	l    *kvLoad
	r    *bufio.Reader
	rand *rand.Rand
	n    int
	keys map[string]string
}

// startKV connects clients, one of ten of which has a large session.
func startKV(t *testing.T, addr string, count int) *kvLoad {
	t.Helper()
	l := &kvLoad{t: t, quit: make(chan struct{}), pids: map[string]int{}, changed: make(chan struct{}, 1)}
	for i := range count {
		k := connect(t, addr)
		c := &kvClient{Conn: k.Conn, l: l, r: bufio.NewReader(k.Conn), rand: rand.New(rand.NewPCG(uint64(i), 1)), keys: map[string]string{}}
		l.clients = append(l.clients, c)
		l.wg.Go(func() {
			if err := c.run(i%10 == 0); err != nil {
				t.Errorf("client %d, after %d answers: %v", i, c.n, err)
				l.mu.Lock()
				l.failed = true
				l.mu.Unlock()
				wakeUp(l.changed)
			}
		})
	}
	t.Cleanup(func() { l.end() })
	l.answered(2)
	return l
}

func wakeUp(ch chan struct{}) {
	select {
	case ch <- struct{}{}:
	default:
	}
}

func (l *kvLoad) end() {
	l.once.Do(func() { close(l.quit) })
	l.wg.Wait()
}

// answered waits until every client has had so many answers more.
func (l *kvLoad) answered(each int) {
	l.t.Helper()
	l.mu.Lock()
	want := l.answers + each*len(l.clients)
	l.mu.Unlock()
	limit := time.After(30 * time.Second)
	for {
		l.mu.Lock()
		have, failed := l.answers, l.failed
		l.mu.Unlock()
		if have >= want || failed {
			return
		}
		select {
		case <-l.changed:
		case <-limit:
			l.t.Fatalf("%d answers within 30 s, want %d", have, want)
		}
	}
}

func (l *kvLoad) stop() (answers, processes int) {
	l.t.Helper()
	l.end()
	if l.answers == 0 {
		l.t.Error("there were no answers")
	}
	return l.answers, len(l.pids)
}

// dismissed waits until the service has taken leave of all clients, which say nothing any
// more.
func (l *kvLoad) dismissed() {
	l.t.Helper()
	for i, c := range l.clients {
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		if b, err := io.ReadAll(c.r); err != nil || !strings.HasPrefix(string(b), "BYE ") {
			l.t.Errorf("client %d: the last words are %q, %v", i, b, err)
		}
	}
}

// run asks until the end, up to three commands at a time, which come in pieces.
func (c *kvClient) run(large bool) error {
	for {
		select {
		case <-c.l.quit:
			return nil
		case <-time.After(time.Duration(c.rand.IntN(20)) * time.Millisecond):
		}
		var ask strings.Builder
		var want []string
		for range 1 + c.rand.IntN(3) {
			command, answer := c.command(large)
			c.n++
			ask.WriteString(command + "\n")
			want = append(want, fmt.Sprintf("%d %s", c.n, answer))
		}
		_ = c.SetDeadline(time.Now().Add(30 * time.Second))
		text := ask.String()
		for cut := c.rand.IntN(len(text) + 1); text != ""; cut = len(text) {
			if _, err := io.WriteString(c, text[:cut]); err != nil {
				return err
			}
			if text = text[cut:]; text != "" && c.rand.IntN(2) == 0 {
				<-time.After(time.Millisecond)
			}
		}
		for _, w := range want {
			got, err := c.r.ReadString('\n')
			if err != nil {
				return fmt.Errorf("instead of %.80q: %q, %w", w, got, err)
			}
			got = strings.TrimSuffix(got, "\n")
			pid, ok := strings.CutPrefix(got, w)
			if !ok || strings.HasSuffix(w, "PID ") == (pid == "") {
				return fmt.Errorf("answer %.80q, want %.80q", got, w)
			}
			c.l.count(pid)
		}
	}
}

// command makes one, and its answer.
func (c *kvClient) command(large bool) (ask, answer string) {
	key := fmt.Sprint("k", c.rand.IntN(20))
	switch c.rand.IntN(5) {
	case 0:
		size := 10
		if large {
			size = 2000
		}
		value := strings.Repeat(fmt.Sprint(c.rand.Uint32()%10), 1+c.rand.IntN(size))
		c.keys[key] = value
		return "SET " + key + " " + value, "OK"
	case 1:
		delete(c.keys, key)
		return "DEL " + key, "OK"
	case 2:
		return "COUNT", fmt.Sprint("COUNT ", len(c.keys))
	case 3:
		return "WHO", "PID "
	}
	return "GET " + key, "VALUE " + c.keys[key]
}

func (l *kvLoad) count(pid string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers++
	if pid != "" {
		l.pids[pid]++
	}
	wakeUp(l.changed)
}

// TestKeyValueKilled: what is in a worker that is killed is lost, and nothing else.
func TestKeyValueKilled(t *testing.T) {
	s := startService(t, 2, "TEST_APP=kv", "TEST_LISTEN="+kvListen(t, "tcp"))
	clients := map[string][]keeper{}
	for i := 0; i < 20 || len(clients) < 2; i++ {
		k := connect(t, s.addr)
		pid, err := k.who()
		if err != nil || i == 500 {
			t.Fatalf("%v, after %d connections to %d workers", err, i, len(clients))
		}
		clients[pid] = append(clients[pid], k)
	}
	for pid, lost := range clients {
		from := s.mark()
		victim, _ := strconv.Atoi(pid)
		if err := syscall.Kill(victim, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		s.exits(from, pid)
		for _, k := range lost {
			if _, err := k.who(); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a connection of the worker that was killed: %v", err)
			}
		}
		delete(clients, pid)
		break
	}
	for range 3 {
		s.upgrade()
	}
	for pid, kept := range clients {
		for _, k := range kept {
			if now, err := k.who(); err != nil || now == pid {
				t.Errorf("a connection of the other worker: %v, with %s, which was %s", err, now, pid)
			}
		}
	}
	s.stop()
}

// who asks who serves the connection.
func (k keeper) who() (pid string, err error) {
	_ = k.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := io.WriteString(k, "WHO\n"); err != nil {
		return "", err
	}
	return k.is()
}

// is reads the answer.
func (k keeper) is() (pid string, err error) {
	line, err := k.r.ReadString('\n')
	if err != nil {
		return "", err
	}
	if pid = match(line, `^\d+ PID (\d+)\n$`); pid == "" {
		err = fmt.Errorf("answer %q", line)
	}
	return pid, err
}

// TestMaxConns: the limit is that of each worker, before an upgrade and after it, and who finds
// no room waits.
func TestMaxConns(t *testing.T) {
	s := startService(t, 2, "TEST_APP=kv", "TEST_MAX_CONNS=3", "TEST_LISTEN="+kvListen(t, "tcp"))
	clients := make([]keeper, 6)
	for i := range clients {
		clients[i] = connect(t, s.addr)
	}
	each := map[string]int{}
	ask := func() {
		t.Helper()
		clear(each)
		for _, k := range clients {
			pid, err := k.who()
			if err != nil {
				t.Fatal(err)
			}
			each[pid]++
		}
	}
	ask()
	for pid, n := range each {
		if n != 3 {
			t.Errorf("%d connections with %s, want 3", n, pid)
		}
	}
	last := connect(t, s.addr)
	if _, err := io.WriteString(last, "WHO\n"); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		ask()
	}
	_ = last.SetReadDeadline(time.Now().Add(time.Millisecond))
	if pid, err := last.is(); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%s serves one too many, %v", pid, err)
	}
	clients[0].Close()
	_ = last.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := last.is(); err != nil {
		t.Error(err)
	}
	clients[0] = last
	for range 2 {
		s.upgrade()
		ask()
	}
	s.stop()
}
