package handover_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/demo"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// The test binary is the service, too: started by another name it runs main as a
// library user would write it.
const serviceName = "service"

var mains = map[string]func(){serviceName: serviceMain, plainName: plainMain, hammerName: hammerMain, askerName: askerMain}

func TestMain(m *testing.M) {
	if main := mains[filepath.Base(os.Args[0])]; main != nil {
		main()
		return
	}
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

// onSteps arms the service's faults where there are tests of them.
var onSteps = func() {}

func serviceMain() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	onSteps()
	launch.NoKernelInfo = os.Getenv("TEST_NO_KERNEL_INFO") != ""
	// As long as there is that file, whoever starts is of the first version.
	if _, err := os.Stat(os.Getenv("TEST_FORMER")); err == nil {
		handover.BeFormer()
	}
	workers, _ := strconv.Atoi(os.Getenv("TEST_WORKERS"))
	timeout, _ := time.ParseDuration(os.Getenv("TEST_UPGRADE_TIMEOUT"))
	probation, _ := time.ParseDuration(os.Getenv("TEST_PROBATION"))
	delay, _ := time.ParseDuration(os.Getenv("TEST_STOP_DELAY"))
	drainTimeout, _ := time.ParseDuration(os.Getenv("TEST_DRAIN_TIMEOUT"))
	listen := []string{"http=tcp://127.0.0.1:0"}
	if l := os.Getenv("TEST_LISTEN"); l != "" {
		listen = strings.Split(l, ",")
	}
	if lessSockets() {
		listen = listen[:1]
	}
	ready, err := workerset.ParseReadiness(os.Getenv("TEST_READY"))
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(2)
	}
	var program handover.ProgramConfig
	switch os.Getenv("TEST_LOG") {
	case "json":
		program.Output = workerset.OutputJSON
	case "raw":
		program.Output = workerset.OutputRaw
	}
	if os.Getenv("TEST_OFFER") == "message" {
		program.Offer = workerset.OfferMessage
	}
	if os.Getenv("TEST_NODE_CHANNEL") == "cluster" {
		program.NodeChannel = workerset.NodeCluster
	}
	maxConns, _ := strconv.Atoi(os.Getenv("TEST_MAX_CONNS"))
	cfg := handover.Config{
		Name:           "service",
		MaxConns:       maxConns,
		Command:        strings.Fields(os.Getenv("TEST_COMMAND")),
		Program:        program,
		Ready:          ready,
		Listen:         listen,
		NoAnchor:       os.Getenv("TEST_NO_ANCHOR") != "",
		Workers:        workers,
		PIDFile:        os.Getenv("TEST_PIDFILE"),
		Control:        os.Getenv("TEST_CONTROL"),
		ControlGroup:   controlGroup(),
		UpgradeTimeout: timeout,
		Probation:      probation,
		Health:         os.Getenv("TEST_HEALTH"),
		StopDelay:      delay,
		DrainTimeout:   drainTimeout,
		KeepOutput:     os.Getenv("TEST_KEEP_OUTPUT") != "",
		StatusListen:   statusListen(),
		Logger:         log,
		Started: func(i handover.Info) {
			log.Info("started", "pid", i.Pid, "listen", strings.Join(i.Listen, ","))
		},
	}
	groupsOf(&cfg)
	messagesOf(&cfg)
	handover.Main(cfg, testApp)
}

// lessSockets: the release does without the last socket.
var lessSockets = func() bool { return false }

// releases is what is wrong with this release of the service, where there are several.
var releases = func() worker.App { return nil }

// controlGroup is what a file says.
func controlGroup() string {
	b, _ := os.ReadFile(os.Getenv("TEST_CONTROL_GROUP"))
	return string(b)
}

// testApp is the built-in app, or one that does not come up.
func testApp(ctx context.Context, w *worker.Worker) error {
	if gate := os.Getenv("TEST_GATE"); gate != "" {
		f, err := os.Open(gate)
		if err != nil {
			return err
		}
		f.Close()
	}
	if app := releases(); app != nil {
		return app(ctx, w)
	}
	switch os.Getenv("TEST_APP") {
	case "plain":
		return w.Serve(ctx, "http", &http.Server{Handler: http.HandlerFunc(plainHandler)})
	case "configured":
		who := fmt.Sprintf("%s id=%d generation=%d pid=%d", w.Name(), w.ID(), w.Generation(), os.Getpid())
		srv, shut := configuredServer(who)
		if err := w.Serve(ctx, "http", srv); err != nil {
			return err
		}
		<-shut
		return nil
	case "kv":
		return keyValue(ctx, w)
	case "messages":
		return messagesApp(ctx, w)
	case "tls":
		return tlsApp(ctx, w)
	case "http2":
		return http2App(ctx, w)
	case "error":
		return errors.New("cannot open the database")
	case "exit":
		os.Exit(7)
	case "panic":
		go panic("not in a managed goroutine")
		<-ctx.Done()
	case "hang":
		<-ctx.Done()
		select {}
	}
	return demo.App(ctx, w)
}

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// service is a running service, as its operator sees it.
type service struct {
	t       testing.TB
	cmd     *exec.Cmd
	bin     string // what it was started by, to be exchanged
	pidFile string
	addr    string
	pid     int  // to send signals to: the anchor's
	solo    bool // one process, without anchor, parent and workers
	ended   bool // has it, if it is one
	exited  chan struct{}
	printed chan struct{} // closed when nobody is left who could print

	mu    sync.Mutex
	lines []string
	more  chan struct{} // closed at the next line
}

// startService starts a copy of this test binary as the service and waits until
// it serves.
func startService(t testing.TB, workers int, env ...string) *service {
	t.Helper()
	return startServiceBy(t, func(bin string) *exec.Cmd { return exec.Command(bin) }, workers, env...)
}

// startServiceBy is startService in another way.
func startServiceBy(t testing.TB, way func(bin string) *exec.Cmd, workers int, env ...string) *service {
	t.Helper()
	dir := t.TempDir()
	bin, pidFile := filepath.Join(dir, serviceName), filepath.Join(dir, "pid")
	install(t, bin)
	cmd := way(bin)
	cmd.Env = append(env, "TEST_WORKERS="+strconv.Itoa(workers), "TEST_PIDFILE="+pidFile)
	s := startCommand(t, cmd)
	s.bin, s.pidFile = bin, pidFile
	line := s.await(has("msg=started"))
	s.addr = match(line, `listen=\S*tcp6?://([^\s,"]+)`)
	s.pid, _ = strconv.Atoi(match(line, ` pid=(\d+)`))
	return s
}

// startCommand starts a command, whose Env is added to this process's, in a process
// group of its own, and reads what it prints. It is stopped with the test.
func startCommand(t testing.TB, cmd *exec.Cmd) *service {
	t.Helper()
	s := &service{t: t, cmd: cmd, exited: make(chan struct{}), printed: make(chan struct{}), more: make(chan struct{})}
	// The race detector would make every process of ours wait 1 s at its exit.
	cmd.Env = append(os.Environ(), append(cmd.Env, "GORACE=atexit_sleep_ms=0")...)
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Setpgid = true
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w, w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	var wg sync.WaitGroup
	wg.Go(func() { s.read(r); close(s.printed) })
	wg.Go(func() { _ = cmd.Wait(); close(s.exited) })
	t.Cleanup(func() {
		select {
		case <-s.exited:
		default:
			_ = syscall.Kill(cmd.Process.Pid, syscall.SIGTERM)
			select {
			case <-s.exited:
			case <-time.After(15 * time.Second):
				t.Error("the service did not stop within 15 s")
				s.killAll()
			}
		}
		wg.Wait()
		if t.Failed() {
			t.Log(s.tail(400))
		}
	})
	return s
}

// install puts the real program in place, as a deployment does.
func (s *service) install() { install(s.t, s.bin) }

func install(t testing.TB, bin string) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	replace(t, bin, func(tmp string) error {
		if os.Link(self, tmp) == nil {
			return nil
		}
		return copyFile(self, tmp)
	})
}

// replace exchanges the program's file by rename, which works while it runs.
func (s *service) replace(way func(tmp string) error) { replace(s.t, s.bin, way) }

func replace(t testing.TB, bin string, way func(tmp string) error) {
	t.Helper()
	tmp := bin + ".new"
	err := way(tmp)
	// A process that was forked while the file was open for writing has it open, too, until it
	// executes its own, and nobody could execute it (ETXTBSY).
	syscall.ForkLock.RLock()
	defer syscall.ForkLock.RUnlock()
	if err == nil {
		err = os.Rename(tmp, bin)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func copyFile(from, to string) error {
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o755)
}

func (s *service) read(r io.ReadCloser) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, 1<<20)
	for sc.Scan() {
		s.mu.Lock()
		s.lines = append(s.lines, sc.Text())
		close(s.more)
		s.more = make(chan struct{})
		s.mu.Unlock()
	}
}

// await returns the first line of the log that is ok.
func (s *service) await(ok func(string) bool) string {
	s.t.Helper()
	line, err := s.waitFrom(0, ok)
	if err != nil {
		s.t.Fatal(err)
	}
	return line
}

// mark is the place in the log up to now; waitFrom looks behind it.
func (s *service) mark() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.lines)
}

func (s *service) waitFrom(from int, ok func(string) bool) (string, error) {
	deadline := time.After(30 * time.Second)
	for last := false; ; {
		s.mu.Lock()
		for ; from < len(s.lines); from++ {
			if line := s.lines[from]; ok(line) {
				s.mu.Unlock()
				return line, nil
			}
		}
		more := s.more
		s.mu.Unlock()
		select {
		case <-more:
		case <-s.printed:
			if !last {
				last = true // what it has printed meanwhile
				continue
			}
			<-s.exited // at the same time
			return "", fmt.Errorf("the service has exited")
		case <-deadline:
			return "", fmt.Errorf("nothing of the kind in the log within 30 s")
		}
	}
}

func (s *service) tail(n int) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return strings.Join(s.lines[max(0, len(s.lines)-n):], "\n")
}

// upgrade sends HUP and waits until the next generation serves alone.
func (s *service) upgrade() {
	s.t.Helper()
	from := s.mark()
	s.signal(syscall.SIGHUP)
	serves := has(`msg="generation serves"`)
	if s.solo {
		serves = has("msg=upgraded err=<nil>")
	}
	if _, err := s.waitFrom(from, serves); err != nil {
		s.t.Fatal(err)
	}
}

func (s *service) signal(sig syscall.Signal) {
	s.t.Helper()
	if s.solo {
		s.pid = s.parent()
	}
	if err := syscall.Kill(s.pid, sig); err != nil {
		s.t.Fatal(err)
	}
}

// stop drains the service and checks that it ends well.
func (s *service) stop() {
	s.t.Helper()
	if s.solo {
		if err := s.end(syscall.SIGTERM); err != nil {
			s.t.Error(err)
		}
		return
	}
	s.signal(syscall.SIGTERM)
	s.awaitExit(0)
}

// awaitExit waits for the end of what was started, with one of the exit codes.
func (s *service) awaitExit(codes ...int) {
	s.t.Helper()
	select {
	case <-s.exited:
	case <-time.After(40 * time.Second):
		s.t.Fatal("the service does not end")
	}
	if got := s.cmd.ProcessState.ExitCode(); !slices.Contains(codes, got) {
		s.t.Errorf("exit code %d, not %v", got, codes)
	}
}

func (s *service) killAll() {
	procs, _ := procs.Descendants(s.cmd.Process.Pid)
	for _, p := range procs {
		_ = syscall.Kill(p.PID, syscall.SIGKILL)
	}
	_ = s.cmd.Process.Kill()
}

// parent is the pid in the PID file.
func (s *service) parent() int {
	s.t.Helper()
	return readPid(s.t, s.pidFile)
}

// workers are the pids of the workers, of whatever generation.
func (s *service) workers() []int {
	s.t.Helper()
	if s.solo {
		return []int{s.parent()}
	}
	procs, err := procs.Descendants(s.cmd.Process.Pid)
	if err != nil {
		s.t.Fatal(err)
	}
	var pids []int
	for _, p := range procs {
		// The parent and the anchor are of this name; a worker of this binary has a
		// title.
		if len(p.Args) > 0 && !strings.HasPrefix(p.Args[0], serviceName+": parent") && p.State != 'Z' {
			pids = append(pids, p.PID)
		}
	}
	return pids
}

// load starts strict clients of every kind.
func (s *service) load(rate float64) *load.Load {
	s.t.Helper()
	return s.loadOf(rate, map[load.Kind]int{load.New: 2, load.Slow: 1, load.Upload: 1, load.Stream: 1})
}

func (s *service) loadOf(rate float64, clients map[load.Kind]int) *load.Load {
	s.t.Helper()
	return s.loadAt(s.addr, rate, clients)
}

// loadAt is loadOf another of the service's sockets.
func (s *service) loadAt(addr string, rate float64, clients map[load.Kind]int) *load.Load {
	s.t.Helper()
	l, err := load.Start(s.t.Context(), load.Config{
		Addr: addr, Rate: rate, WaitReady: 20 * time.Second,
		Clients: clients, SlowMS: 100, StreamMS: 100, UploadMS: 100,
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return l
}

func match(s, re string) string {
	if m := regexp.MustCompile(re).FindStringSubmatch(s); m != nil {
		return m[1]
	}
	return ""
}

func readPid(t testing.TB, file string) int {
	t.Helper()
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatalf("PID file: %q", b)
	}
	return pid
}

// freeAddr is an address on which nothing listens now, and that no client is given as
// its own meanwhile: ip(7), ip_local_port_range.
func freeAddr(t testing.TB) string {
	t.Helper()
	for range 100 {
		ln, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			defer ln.Close()
			return ln.Addr().String()
		}
	}
	t.Fatal("no free port")
	return ""
}

// until looks again and again until there is nothing to complain of: nobody tells
// what /proc says.
func until(t testing.TB, limit time.Duration, complaint func() string) {
	t.Helper()
	deadline := time.Now().Add(limit)
	for {
		what := complaint()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %v: %s", limit, what)
		}
		<-time.After(5 * time.Millisecond)
	}
}
