//go:build linux

package workerset_test

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/workerset"
)

// The test binary is the workers, too: a set executes its own image, and the
// variables of behaviour_test.go say what a worker does.
func TestMain(m *testing.M) {
	if steps, ok := os.LookupEnv(envForeign); ok {
		foreignMain(steps)
	}
	if os.Getenv(wire.Env) != "" {
		workerMain()
	}
	if err := launch.BecomeSubreaper(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8")      // they wait for processes more than they compute
	if r, w, err := os.Pipe(); err == nil { // the runtime's poller opens its own descriptors
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	http.DefaultClient.CloseIdleConnections()
	bad := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		code = max(code, 1)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		bad("processes are left: wait4 says %d, %v; children: %v", pid, err, launch.Children())
	}
	if err := goleak.Find(); err != nil {
		bad("%v", err)
	}
	if after := descriptors(); len(after) > len(before) {
		bad("descriptors leaked:\nbefore %v\nafter %v", before, after)
	}
	os.Exit(code)
}

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// harness is a set that runs, and all that it says.
type harness struct {
	*recorder
	t         *testing.T
	set       *workerset.Set
	sock      int // the listening socket "http"
	addr      string
	out       string        // the file that the workers write to
	notesFile string        // and that of talk
	ended     chan struct{} // closed when Run has returned
	news      *newsLog
}

// newSet makes a set of one group "web" that serves one socket; change makes
// something else of it.
func newSet(t *testing.T, change func(*workerset.Config)) *harness {
	t.Helper()
	sock, addr := heldSocket(t)
	return newSetOn(t, sock, addr, change)
}

func newSetOn(t *testing.T, sock int, addr string, change func(*workerset.Config)) *harness {
	t.Helper()
	h := &harness{recorder: newRecorder(t), t: t, sock: sock, addr: addr, ended: make(chan struct{}), news: newNewsLog()}
	out, err := os.Create(filepath.Join(t.TempDir(), "output"))
	if err != nil {
		t.Fatal(err)
	}
	outFd, err := launch.Fd(out)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if b, _ := os.ReadFile(out.Name()); t.Failed() {
			t.Logf("what the workers wrote:\n%s", b)
		}
		out.Close()
	})
	h.out = out.Name()
	cfg := workerset.Config{
		Name: "test", Stdout: outFd, Stderr: outFd,
		// The race detector would make every process of ours wait 1 s at its exit.
		Program: workerset.Program{Env: append(os.Environ(), "GORACE=atexit_sleep_ms=0")},
		Groups:  []workerset.Group{{Name: "web", Count: 1, DrainTimeout: 5 * time.Second}},
		Sockets: map[string]int{"http": sock},
		Logger:  slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), &h.log), &slog.HandlerOptions{Level: slog.LevelDebug})),
		Observe: h.observe,
		Events:  h.news.add,
	}
	if change != nil {
		change(&cfg)
	}
	if h.set, err = workerset.New(cfg); err != nil {
		t.Fatal(err)
	}
	return h
}

// start runs the set until the test's end.
func (h *harness) start() *harness {
	h.t.Helper()
	go func() {
		defer close(h.ended)
		if err := h.set.Run(); err != nil {
			h.t.Error(err)
		}
		h.news.check(h.t)
	}()
	h.t.Cleanup(func() { h.stop() })
	return h
}

// serve runs the set and waits until all workers serve.
func (h *harness) serve() *harness {
	h.t.Helper()
	h.start()
	if err := h.set.Ready(h.ctx()); err != nil {
		h.t.Fatal(err)
	}
	return h
}

// stop drains the set and waits for its end.
func (h *harness) stop() workerset.Report {
	h.t.Helper()
	h.set.Stop()
	select {
	case <-h.ended:
	case <-time.After(patience):
		h.set.Kill()
		<-h.ended
		h.t.Error("the set does not stop")
	}
	return h.set.StopReport()
}

// ctx ends with the test, or after patience.
func (h *harness) ctx() context.Context {
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	h.t.Cleanup(cancel)
	return ctx
}

func (h *harness) status() workerset.GroupStatus {
	h.t.Helper()
	st, err := h.set.Status(h.ctx())
	if err != nil {
		h.t.Fatal(err)
	}
	return st.Groups[0]
}

// pids are those of the workers in a state.
func (h *harness) pids(state string) (pids []int) {
	h.t.Helper()
	for _, w := range h.status().Workers {
		if w.State == state {
			pids = append(pids, w.Pid)
		}
	}
	slices.Sort(pids)
	return pids
}

// get asks one of the workers, and returns what it answers.
func (h *harness) get(path string) string {
	h.t.Helper()
	resp, err := client.Get("http://" + h.addr + path)
	if err != nil {
		h.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// hold begins a request that lasts until the function that it returns is called,
// which returns the answer.
func (h *harness) hold() (end func() (string, error)) {
	h.t.Helper()
	r, w := io.Pipe()
	req, err := http.NewRequestWithContext(h.ctx(), http.MethodPost, "http://"+h.addr+"/hold", r)
	if err != nil {
		h.t.Fatal(err)
	}
	resp, err := client.Do(req) // returns when the handler has begun to answer
	if err != nil {
		h.t.Fatal(err)
	}
	return func() (string, error) {
		w.Close()
		defer resp.Body.Close()
		b, err := io.ReadAll(resp.Body)
		return strings.TrimSpace(string(b)), err
	}
}

// recorder keeps a set's changes and its log.
type recorder struct {
	t       *testing.T
	log     logBuffer
	mu      sync.Mutex
	changes []workerset.Change
	more    chan struct{} // closed at the next change
}

func newRecorder(t *testing.T) *recorder { return &recorder{t: t, more: make(chan struct{})} }

func (r *recorder) observe(c workerset.Change) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.changes = append(r.changes, c)
	close(r.more)
	r.more = make(chan struct{})
}

func (r *recorder) all() []workerset.Change {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.changes)
}

// wait returns the first change, from the one with the given number on, that is
// ok, and its number.
func (r *recorder) wait(from int, ok func(workerset.Change) bool) (workerset.Change, int) {
	r.t.Helper()
	deadline := time.After(patience)
	for {
		r.mu.Lock()
		changes, more := r.changes, r.more
		r.mu.Unlock()
		for ; from < len(changes); from++ {
			if ok(changes[from]) {
				return changes[from], from
			}
		}
		select {
		case <-more:
		case <-deadline:
			r.t.Fatalf("it does not happen; what happened is\n%s", r.story())
		}
	}
}

// state waits for a worker, known by its id, to get into a state.
func (r *recorder) state(id int, state string) workerset.Worker {
	r.t.Helper()
	c, _ := r.wait(0, func(c workerset.Change) bool { return c.Worker.ID == id && c.Worker.State == state })
	return c.Worker
}

// story is all changes, for people.
func (r *recorder) story() string {
	var b strings.Builder
	for _, c := range r.all() {
		w := c.Worker
		fmt.Fprintf(&b, "%s/%d id=%d pid=%d %s → %s %s %.40s %s\n", w.Group, w.Slot, w.ID, w.Pid, c.From, w.State, w.Cause, w.Reason, w.Exit)
	}
	return b.String()
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// heldSocket is a listening socket as a parent holds it, outside of the runtime's
// poller.
func heldSocket(t testing.TB) (fd int, addr string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	rc, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var derr error
	if err := rc.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil || derr != nil {
		t.Fatal(errors.Join(err, derr))
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd, ln.Addr().String()
}

// descriptors are what this process has open, without the directory that is read
// to find out.
func descriptors() []string {
	entries, _ := os.ReadDir("/proc/self/fd")
	var open []string
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			open = append(open, e.Name()+"="+to)
		}
	}
	return open
}

// noLeak fails the test if it leaves descriptors open. The test must not be
// parallel to others.
func noLeak(t *testing.T) {
	t.Helper()
	before := descriptors()
	t.Cleanup(func() {
		if after := descriptors(); len(after) > len(before) {
			t.Errorf("descriptors leaked:\nbefore %v\nafter %v", before, after)
		}
	})
}
