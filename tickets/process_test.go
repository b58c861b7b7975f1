package tickets

import (
	"bufio"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// envServer makes the test binary a server that has the file as descriptor 3.
const (
	envServer = "TICKETS_TEST_DIR" // where its certificate is
	envClock  = "TICKETS_TEST_CLOCK"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(envServer); dir != "" {
		serverMain(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

// serverMain shakes hands on the address that it prints, and does what it reads:
//
//	clock DURATION   it is that much later now
//	lock             takes the file's lock, and says whether it has it
//	unlock
//	try              whether it writes a new key when it is time for one
//	storm N          writes N new keys
func serverMain(dir string) {
	check := func(err error) {
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
	}
	now := newClock()
	late, _ := time.ParseDuration(os.Getenv(envClock))
	now.add(late)
	f := os.NewFile(3, "tickets")
	unix.CloseOnExec(3)
	k, err := New(f, Config{now: now.now, Logger: slog.New(slog.NewTextHandler(os.Stdout, nil))})
	check(err)
	cert, err := tls.LoadX509KeyPair(filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem"))
	check(err)
	ln, err := tls.Listen("tcp", "127.0.0.1:0", k.TLS("web", &tls.Config{Certificates: []tls.Certificate{cert}}))
	check(err)
	go func() {
		for {
			c, err := ln.Accept()
			check(err)
			go func() {
				_, _ = c.Write([]byte("x"))
				c.Close()
			}()
		}
	}()
	fmt.Println(ln.Addr())
	unlock := func() {}
	writes := func() bool {
		now.add(DefaultEvery)
		k.look()
		k.mu.Lock()
		defer k.mu.Unlock()
		return k.ring[0].from == now.ns.Load()
	}
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		verb, arg, _ := strings.Cut(lines.Text(), " ")
		switch verb {
		case "clock":
			d, err := time.ParseDuration(arg)
			check(err)
			now.add(d)
			fmt.Println("ok")
		case "lock":
			if unlock, err = lock(f); errors.Is(err, errLocked) {
				fmt.Println("locked by another")
				continue
			}
			check(err)
			fmt.Println("ok")
		case "unlock":
			unlock()
			fmt.Println("ok")
		case "try":
			fmt.Println(writes())
		case "storm":
			n := 0
			_, err := fmt.Sscan(arg, &n)
			check(err)
			for n > 0 {
				if writes() {
					n--
				}
			}
			fmt.Println("ok")
		}
	}
}

// server is such a process.
type server struct {
	t    *testing.T
	cmd  *exec.Cmd
	in   io.Writer
	out  *bufio.Reader
	addr string
}

// servers starts some that share a file.
func servers(t *testing.T, s *site, n int) (list []*server, f *os.File, dir string) {
	t.Helper()
	f, dir = newFile(t), t.TempDir()
	cert, key := s.Issue(1, time.Hour)
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "cert.pem"), cert, 0o600), os.WriteFile(filepath.Join(dir, "key.pem"), key, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range n {
		list = append(list, start(t, f, dir, 0))
	}
	return list, f, dir
}

func start(t *testing.T, f *os.File, dir string, late time.Duration) *server {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), envServer+"="+dir, envClock+"="+late.String(), "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{f}
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	s := &server{t: t, cmd: cmd, in: in, out: bufio.NewReader(out)}
	t.Cleanup(s.kill)
	s.addr = s.line()
	return s
}

func (s *server) kill() {
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait() // the second time it says that
}

func (s *server) line() string {
	s.t.Helper()
	line, err := s.out.ReadString('\n')
	if err != nil {
		s.t.Fatalf("%q, %v", line, err)
	}
	return strings.TrimSpace(line)
}

// do has it do something, and returns what it says to that.
func (s *server) do(what string) string {
	s.t.Helper()
	if _, err := fmt.Fprintln(s.in, what); err != nil {
		s.t.Fatal(err)
	}
	return s.line()
}

func (s *server) want(what string, resumed bool, client *tls.Config) {
	s.t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	tc := tls.Client(c, client)
	defer tc.Close()
	if b, err := io.ReadAll(tc); err != nil || string(b) != "x" {
		s.t.Fatalf("%s: %q, %v", what, b, err)
	}
	if got := tc.ConnectionState().DidResume; got != resumed {
		s.t.Errorf("%s: resumed %v", what, got)
	}
}

// TestProcesses: whoever rotates, all know the key when the first ticket of it is shown.
func TestProcesses(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, f, dir := servers(t, s, 2)
	a, b := p[0], p[1]
	c, old := s.client(tls.VersionTLS13), s.client(tls.VersionTLS13)
	a.want("the first time", false, c)
	b.want("at another", true, c)
	a.want("one that stays away", false, old)
	ticket, _ := old.ClientSessionCache.Get("localhost")
	kept := func(what string, resumed bool) {
		t.Helper()
		for _, p := range p {
			old.ClientSessionCache.Put("localhost", ticket)
			p.want(what, resumed, old)
		}
	}
	a.do("clock 8h")
	b.do("clock 13h")
	b.want("the first key, where it is time for the second", true, c)
	a.want("the second key, where it is not", true, c)
	kept("the first key", true)
	// Who has written it is killed, and comes again.
	b.kill()
	b = start(t, f, dir, 26*time.Hour)
	p[1] = b
	b.want("the second key, at a new process that has made a third", true, c)
	a.do("clock 17h")
	a.want("the third key", true, c)
	kept("the first key, after 12 hours", true)
	b.do("clock 12h")
	b.want("the third key", true, c)
	a.do("clock 13h")
	a.want("the fourth key", true, c)
	kept("the first key, after a day", false)
}

// TestLock: it is one that processes have against each other, although they share the
// description of the open file; whoever can't have it goes on without, and it ends with
// its process.
func TestLock(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, _, _ := servers(t, s, 2)
	a, b := p[0], p[1]
	if got := a.do("lock"); got != "ok" {
		t.Fatal(got)
	}
	if got := b.do("lock"); got != "locked by another" {
		t.Fatalf("the other one: %s", got)
	}
	if a.do("unlock"); b.do("lock") != "ok" {
		t.Fatal("it is not let go")
	}
	b.do("unlock")
	if got := a.do("lock"); got != "ok" {
		t.Fatal(got)
	}
	if err := a.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	c := s.client(tls.VersionTLS13)
	b.want("the first time", false, c)
	if got := b.do("try"); got != "false" {
		t.Errorf("a new key without the lock: %s", got)
	}
	b.want("with the old key", true, c)
	a.kill()
	if got := b.do("try"); got != "true" {
		t.Errorf("a new key: %s", got)
	}
}

// TestStorm: however many write, nobody reads what nobody has written.
func TestStorm(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	p, f, _ := servers(t, s, 3)
	said := make(chan string, len(p))
	for _, p := range p {
		go func() {
			_, _ = fmt.Fprintln(p.in, "storm 1000")
			line, err := p.out.ReadString('\n')
			said <- fmt.Sprint(strings.TrimSpace(line), err)
		}()
	}
	torn, reads := 0, 0
	for left := len(p); left > 0; reads++ {
		select {
		case line := <-said:
			left--
			if line != "ok<nil>" {
				t.Error(line)
			}
		default:
		}
		b, err := read(f)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := parse(b); err != nil {
			torn++ // in the middle of somebody's writing: who has the lock never sees that
		}
	}
	t.Logf("%d of %d reads were torn", torn, reads)
	b, err := read(f)
	if err != nil {
		t.Fatal(err)
	}
	if r, err := parse(b); err != nil || len(r) < 2 {
		t.Errorf("in the end: %v, %v", r, err)
	}
}
