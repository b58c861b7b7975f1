package anchor

import (
	"bufio"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/launch"
)

// The tests run real processes: this binary, which is an anchor, or whatever the
// anchor holds, when the environment says so.
const (
	envRole    = "ANCHOR_TEST_ROLE"    // anchor, terminal, pid1, run or parent
	envControl = "ANCHOR_TEST_CONTROL" // unix socket of the test
	envGrace   = "ANCHOR_TEST_GRACE"
	envHang    = "ANCHOR_TEST_HANG"
	envEncoded = "ANCHOR_TEST_ENCODED" // what an anchor hands over instead of its state
	envAhead   = "ANCHOR_TEST_AHEAD"   // by how much its time of day is ahead of that of its next program
)

// patience bounds every wait; nothing depends on it but how soon a test fails.
const patience = 30 * time.Second

func TestMain(m *testing.M) {
	switch os.Getenv(envRole) {
	case "anchor", "run":
		anchorMain()
	case "terminal":
		terminalMain()
	case "pid1":
		pid1Main()
	case "parent":
		parentMain()
	}
	os.Exit(checked(m))
}

// checked runs the tests and makes sure that they leave nothing behind.
func checked(m *testing.M) int {
	if err := launch.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	// Whoever started the tests may have left descriptors open for them.
	_ = unix.CloseRange(3, 1<<20, unix.CLOSE_RANGE_CLOEXEC)
	before := openFiles("self")
	if code := m.Run(); code != 0 {
		return code
	}
	if err := goleak.Find(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil); err != syscall.ECHILD {
		fmt.Fprintf(os.Stderr, "processes are left: wait4: %d, %v, children %v\n", pid, err, launch.Children())
		return 1
	}
	// The runtime's poller and the signals' take three at their first use.
	if after := openFiles("self"); after > before+3 {
		fmt.Fprintf(os.Stderr, "%d open files, %d before\n", after, before)
		return 1
	}
	return 0
}

// anchorMain becomes an anchor, and then is one.
func anchorMain() {
	if os.Getenv(envRole) != "run" {
		fmt.Fprintln(os.Stderr, Become("test: anchor", append(os.Environ(), envRole+"=run")))
		os.Exit(95)
	}
	os.Unsetenv(envRole)
	if text := os.Getenv(envEncoded); text != "" {
		encode = func(state) string { return text }
	}
	if d, err := time.ParseDuration(os.Getenv(envAhead)); err == nil {
		here := encode
		encode = func(s state) string { return string(golden.Ahead([]byte(here(s)), d)) }
	}
	grace, _ := time.ParseDuration(os.Getenv(envGrace))
	hang, _ := time.ParseDuration(os.Getenv(envHang))
	code, err := Run(Config{
		Title: "test: parent", Env: []string{envRole + "=parent"}, Role: []string{envRole + "=run"}, Grace: grace, HungAfter: hang,
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err != nil {
		fmt.Fprintln(os.Stderr, "run:", err)
	}
	os.Exit(code)
}

// world is a test's anchor and what speaks to the test from below it.
type world struct {
	t       *testing.T
	control *net.UnixListener
	anchor  *launch.Process
	mu      sync.Mutex
	lines   []string      // of the anchor's standard error
	more    chan struct{} // closed at the next line
	eof     bool
}

// newWorld prepares for an anchor; env goes to it.
func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, more: make(chan struct{})}
	// A short path: t.TempDir's can be too long for a socket.
	dir, err := os.MkdirTemp("", "anchor")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	w.control, err = net.ListenUnix("unix", &net.UnixAddr{Name: filepath.Join(dir, "s"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.control.Close() })
	return w
}

func (w *world) env(role string, env ...string) []string {
	return append(append(os.Environ(), env...), envRole+"="+role, envControl+"="+w.control.Addr().String(),
		"GORACE=atexit_sleep_ms=0", EnvPid+"=")
}

func testBinary(t *testing.T) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return self
}

// start starts an anchor, with its parent, and returns that.
func start(t *testing.T, env ...string) (*world, *actor) {
	t.Helper()
	w := newWorld(t)
	w.launch(func(stderr int) (*launch.Process, error) {
		null, err := os.Open(os.DevNull)
		if err != nil {
			return nil, err
		}
		defer null.Close()
		fd, err := launch.Fd(null)
		if err != nil {
			return nil, err
		}
		self := testBinary(t)
		return launch.Start(launch.Spec{Path: self, Args: []string{self}, Env: w.env("anchor", env...),
			Fds: []int{fd, stderr, stderr}, Setpgid: true})
	})
	return w, w.accept()
}

// launch starts an anchor in some way.
func (w *world) launch(how func(stderr int) (*launch.Process, error)) {
	w.t.Helper()
	r, wr, err := os.Pipe()
	if err != nil {
		w.t.Fatal(err)
	}
	w.anchor, err = how(int(wr.Fd())) // blocking, as programs expect it
	wr.Close()
	if err != nil {
		r.Close()
		w.t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { w.read(r) })
	w.t.Cleanup(func() {
		// What is below the anchor ends with its control connection.
		_ = w.anchor.Signal(syscall.SIGTERM)
		w.anchor.Wait()
		w.anchor.Close()
		wg.Wait()
		if w.t.Failed() {
			w.t.Log(strings.Join(w.lines, "\n"))
		}
	})
}

func (w *world) read(r *os.File) {
	defer r.Close()
	sc := bufio.NewScanner(r)
	for more := true; more; {
		more = sc.Scan()
		w.mu.Lock()
		if more {
			w.lines = append(w.lines, sc.Text())
		}
		w.eof = !more
		close(w.more)
		w.more = make(chan struct{})
		w.mu.Unlock()
	}
}

// logged waits until the anchor has said something.
func (w *world) logged(text string) {
	w.t.Helper()
	deadline := time.After(patience)
	for {
		w.mu.Lock()
		found := slices.ContainsFunc(w.lines, func(l string) bool { return strings.Contains(l, text) })
		more, eof := w.more, w.eof
		w.mu.Unlock()
		if found {
			return
		}
		if eof {
			w.t.Fatalf("the anchor did not say %q before its end", text)
		}
		select {
		case <-more:
		case <-deadline:
			w.t.Fatalf("the anchor did not say %q", text)
		}
	}
}

// count is how many lines of the log have a text.
func (w *world) count(text string) (n int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, l := range w.lines {
		if strings.Contains(l, text) {
			n++
		}
	}
	return n
}

// exit waits for the anchor's end and checks its status.
func (w *world) exit(code int) {
	w.t.Helper()
	deadline := time.AfterFunc(patience, func() {
		w.t.Error("the anchor does not end")
		_ = w.anchor.Signal(syscall.SIGKILL)
	})
	defer deadline.Stop()
	if st := w.anchor.Wait(); !st.Known || st.Signal != 0 || st.Code != code {
		w.t.Errorf("the anchor ended with %v, want exit status %d", st, code)
	}
}

func (w *world) signal(sig syscall.Signal) {
	w.t.Helper()
	if err := w.anchor.Signal(sig); err != nil {
		w.t.Fatal(err)
	}
}

// actor is a process below the anchor, which does what the test says.
type actor struct {
	t    *testing.T
	conn *net.UnixConn
	sc   *bufio.Scanner
	pid  int
}

// accept waits for the next process.
func (w *world) accept() *actor {
	w.t.Helper()
	_ = w.control.SetDeadline(time.Now().Add(patience))
	conn, err := w.control.AcceptUnix()
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(2 * patience))
	a := &actor{t: w.t, conn: conn, sc: bufio.NewScanner(conn)}
	f := strings.Fields(a.next())
	if len(f) != 3 || f[0] != "hello" {
		w.t.Fatalf("greeted with %q", f)
	}
	a.pid, _ = strconv.Atoi(f[1])
	if f[2] != "-" {
		w.t.Errorf("process %d was started with descriptors that are not its: %s", a.pid, f[2])
	}
	return a
}

// next is the next line that the process says, "" at its end.
func (a *actor) next() string {
	a.t.Helper()
	if a.sc.Scan() {
		return a.sc.Text()
	}
	if err := a.sc.Err(); err != nil && !errors.Is(err, syscall.ECONNRESET) {
		a.t.Fatalf("process %d: %v", a.pid, err)
	}
	return ""
}

func (a *actor) expect(want string) {
	a.t.Helper()
	if got := a.next(); got != want {
		a.t.Errorf("process %d said %q, want %q", a.pid, got, want)
	}
}

// gone waits for its end.
func (a *actor) gone() { a.t.Helper(); a.expect("") }

// tell makes it do something.
func (a *actor) tell(format string, args ...any) {
	a.t.Helper()
	if _, err := fmt.Fprintf(a.conn, format+"\n", args...); err != nil {
		a.t.Fatal(err)
	}
}

// ask is for what has an answer.
func (a *actor) ask(format string, args ...any) string {
	a.t.Helper()
	a.tell(format, args...)
	return a.next()
}

// notify sends to the anchor, and waits until that has acted on it.
func (a *actor) notify(assignments ...string) {
	a.t.Helper()
	if got := a.ask("notify %s", strings.Join(assignments, "|")); got != "notified" {
		a.t.Fatalf("process %d: notify: %s", a.pid, got)
	}
}

// claim makes it name itself, and does not wait for the anchor, which may have to.
func (a *actor) claim() {
	a.t.Helper()
	if got := a.ask("say MAINPID=%d|READY=1", a.pid); got != "said" {
		a.t.Fatal(got)
	}
}

// spawn makes it start another one, with an addition to its environment.
func (w *world) spawn(a *actor, env ...string) *actor {
	w.t.Helper()
	a.tell("spawn %s", strings.Join(append(env, "ANCHOR_TEST=1")[:1], ""))
	b := w.accept()
	if got := a.next(); got != "spawned "+strconv.Itoa(b.pid) {
		w.t.Fatalf("process %d: %s", a.pid, got)
	}
	return b
}

func openFiles(pid string) int {
	list, _ := os.ReadDir("/proc/" + pid + "/fd")
	return len(list)
}
