package protocols_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/worker"
)

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// lameDuck is how long the services leave idle connections open in a drain: longer than a client
// is idle, even if the machine is busy.
const lameDuck = 5 * time.Second

// The test binary is each of the services, too, by what envApp says.
const envApp, envTimeout, envDelay, envListen = "PROTOCOLS_APP", "PROTOCOLS_DRAIN_TIMEOUT", "PROTOCOLS_STOP_DELAY", "PROTOCOLS_LISTEN"

// apps are the examples', with what the tests need beside them.
var apps = map[string]worker.App{
	"grpc":      serveGRPC,
	"websocket": serveWebSockets,
	"packets":   servePackets,
	"fasthttp":  serveFast,
	"proxied":   serveProxied,
	"limited":   serveLimited,
	"http2":     serveHTTP2,
	"lines":     serveLines(func(part string) (string, bool) { return part, true }),

	// And those that are wrong.
	"grpc stopped":    serveStopped,
	"http2 closed":    serveClosed,
	"packets dropped": serveDropped,
	"lines forgotten": serveLines(func(string) (string, bool) { return "", true }),
	"lines closed":    serveLines(func(string) (string, bool) { return "", false }),
}

func TestMain(m *testing.M) {
	if name := os.Getenv(envApp); name != "" {
		serviceMain(apps[name])
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "4") // they wait more than they compute
	if err := procs.Subreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := procs.ReapAll(ctx); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "processes left behind:", err)
		code = 1
	}
	os.Exit(code)
}

func serviceMain(app worker.App) {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	timeout, _ := time.ParseDuration(os.Getenv(envTimeout))
	delay, _ := time.ParseDuration(os.Getenv(envDelay))
	handover.Main(handover.Config{
		Name: "service", Listen: strings.Split(os.Getenv(envListen), ","), Workers: 2, Probation: -1,
		DrainTimeout: timeout, LameDuck: lameDuck, StopDelay: delay, Logger: log,
		Started: func(i handover.Info) { log.Info("started", "listen", strings.Join(i.Listen, ",")) },
	}, app)
}

// who names a worker in answers.
func who(w *worker.Worker) string {
	return fmt.Sprintf("generation=%d %s pid=%d", w.Generation(), w.Name(), os.Getpid())
}

// service is a running service of two workers, as its operator sees it.
type service struct {
	t       testing.TB
	cmd     *exec.Cmd
	addr    string
	printed chan struct{} // closed when nobody is left who could print

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at the next line
}

// start starts a service and waits until it serves. It is stopped with the test.
func start(t testing.TB, app, listen string, env ...string) *service {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	s := &service{t: t, cmd: exec.Command(exe), printed: make(chan struct{}), more: make(chan struct{})}
	// The race detector would make every process wait 1 s at its exit.
	s.cmd.Env = append(os.Environ(), append(env, "GORACE=atexit_sleep_ms=0", envApp+"="+app, envListen+"="+listen)...)
	s.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	s.cmd.Stdout, s.cmd.Stderr = w, w
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go s.read(r)
	t.Cleanup(func() {
		if s.cmd.ProcessState == nil {
			s.signal(syscall.SIGTERM)
			late := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
			defer late.Stop()
			_ = s.cmd.Wait()
		}
		<-s.printed
		if t.Failed() {
			t.Log(strings.Join(s.lines[max(0, len(s.lines)-200):], "\n"))
		}
	})
	s.addr = match(s.await(0, "msg=started"), `listen=\S*://([^\s,"]+)`)
	return s
}

func (s *service) read(r *os.File) {
	defer close(s.printed)
	defer r.Close()
	for sc := bufio.NewScanner(r); sc.Scan(); {
		s.mu.Lock()
		s.lines = append(s.lines, sc.Text())
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
}

// mark is the place in the log up to now.
func (s *service) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

// await returns the first line of the log behind a mark that has all of the words.
func (s *service) await(from int, words ...string) string {
	s.t.Helper()
	line, _ := s.find(from, words...)
	return line
}

// find is await, and returns the place behind the line, too.
func (s *service) find(from int, words ...string) (string, int) {
	s.t.Helper()
	for late := time.After(patience); ; {
		s.mu.Lock()
		for ; from < len(s.lines); from++ {
			if has(s.lines[from], words) {
				defer s.mu.Unlock()
				return s.lines[from], from + 1
			}
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-s.printed:
			s.t.Fatalf("the service has ended, and not said %q", words)
		case <-late:
			s.t.Fatalf("within %v the service has not said %q", patience, words)
		}
	}
}

// drained waits until both workers of before have drained, and sums up what they say: how
// many connections were open when it began, and how many have finished, were closed while
// idle, and were cut.
func (s *service) drained(from int) (open, finished, idle, cut int) {
	s.t.Helper()
	begun, ended := from, from
	for range 2 {
		var line string
		line, begun = s.find(begun, "msg=draining")
		open += number(s.t, line, "open")
		line, ended = s.find(ended, "msg=drained")
		finished += number(s.t, line, "finished")
		idle += number(s.t, line, "closed_idle")
		cut += number(s.t, line, "cut")
	}
	return open, finished, idle, cut
}

// number is an attribute of a line of the log.
func number(t testing.TB, line, name string) int {
	t.Helper()
	n, err := strconv.Atoi(match(line, " "+name+`=(\d+)`))
	if err != nil {
		t.Fatalf("no %s in %s", name, line)
	}
	return n
}

// count counts the lines that have all of the words.
func (s *service) count(words ...string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, line := range s.lines {
		if has(line, words) {
			n++
		}
	}
	return n
}

func has(line string, words []string) bool {
	for _, w := range words {
		if !strings.Contains(line+" ", w) {
			return false
		}
	}
	return true
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if err := s.cmd.Process.Signal(sig); err != nil {
		s.t.Error(err)
	}
}

// upgrade replaces all workers, and waits until the new ones serve.
func (s *service) upgrade() {
	s.t.Helper()
	from := s.mark()
	s.signal(syscall.SIGHUP)
	s.await(from, `msg="generation serves"`)
}

// stop stops the service, which has to end well.
func (s *service) stop() {
	s.t.Helper()
	s.signal(syscall.SIGTERM)
	s.ends()
}

func (s *service) ends() {
	s.t.Helper()
	late := time.AfterFunc(patience, func() { _ = syscall.Kill(-s.cmd.Process.Pid, syscall.SIGKILL) })
	defer late.Stop()
	if err := s.cmd.Wait(); err != nil {
		s.t.Errorf("the service: %v", err)
	}
}

// clean checks that no drain has cut anything, and nothing was out of order, but for what a
// machine brings about that is so busy that nobody comes to take a connection for 50 ms.
func (s *service) clean() {
	s.t.Helper()
	<-s.printed
	for _, line := range s.lines {
		if strings.Contains(line, "no process takes connections: they are served here for now") {
			continue
		}
		if strings.Contains(line, "level=WARN") || strings.Contains(line, "level=ERROR") || strings.Contains(line, "DATA RACE") {
			s.t.Errorf("the service says: %s", line)
		}
	}
	if s.count("msg=drained", " cut=0 ") == 0 {
		s.t.Error("nothing has drained")
	}
}

// load starts strict clients of an HTTP server.
func (s *service) load(addr string, clients map[load.Kind]int) *load.Load {
	s.t.Helper()
	l, err := load.Start(s.t.Context(), load.Config{
		Addr: addr, Rate: 30, WaitReady: patience, Clients: clients, SlowMS: 100, StreamMS: 100, UploadMS: 100,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

// everyone is one strict client and more of each kind that HTTP/1.1 has.
var everyone = map[load.Kind]int{load.New: 3, load.Slow: 1, load.Upload: 1, load.Stream: 1, load.KeepAlive: 4}

// answered waits until the load is answered by a generation.
func answered(t *testing.T, l *load.Load, generation int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	want := fmt.Sprintf("generation=%d ", generation)
	if err := l.WaitWorker(ctx, func(w string) bool { return strings.HasPrefix(w, want) }); err != nil {
		t.Fatal(err)
	}
}

// lameDucks ends a load of a server whose idle connections can't move: no request has
// failed, and those who keep a connection were told to close it, which is all that the
// contract says of such.
func lameDucks(t *testing.T, l *load.Load) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := l.WaitEach(ctx, 2); err != nil { // also after the last restart
		t.Error(err)
	}
	r := l.Stop()
	if err := r.ExceptIdle().Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	if r.ClosedIdle == 0 {
		t.Error("no client was asked to close its connection: does it move now? Then the contract has to say so")
	}
	for _, f := range r.Log() {
		if !strings.Contains(f.Detail, "close") {
			t.Errorf("not asked to close: %v", f)
		}
	}
	t.Logf("%d requests, %d connections closed, %d workers", r.Started, r.ClosedIdle, len(r.Workers))
}

func match(s, re string) string {
	if m := regexp.MustCompile(re).FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

// generation is that of a worker's name.
func generation(who string) int {
	n, _ := strconv.Atoi(match(who, `^generation=(\d+) `))
	return n
}

// file is a path that only this test has.
func file(t *testing.T) string { return filepath.Join(t.TempDir(), "file") }
