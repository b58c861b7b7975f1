//go:build linux

package worker_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
)

// The test binary is the worker, too, when envApp names what it is to do.
func TestMain(m *testing.M) {
	if app := os.Getenv(envApp); app != "" {
		workerMain(app)
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8")      // they wait for processes more than they compute
	if r, w, err := os.Pipe(); err == nil { // the runtime's poller opens its own descriptors
		r.Close()
		w.Close()
	}
	before := descriptors()
	code := m.Run()
	bad := func(format string, args ...any) {
		fmt.Fprintf(os.Stderr, format+"\n", args...)
		code = max(code, 1)
	}
	if pid, err := unix.Wait4(-1, nil, unix.WNOHANG, nil); err != unix.ECHILD {
		bad("processes are left: wait4 says %d, %v", pid, err)
	}
	if err := goleak.Find(); err != nil {
		bad("%v", err)
	}
	if after := descriptors(); len(after) > len(before) {
		bad("descriptors leaked:\nbefore %v\nafter %v", before, after)
	}
	os.Exit(code)
}

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

// patience is how long a test waits for what should happen at once.
const patience = 30 * time.Second

// process is a worker, or the same program without a parent, as its parent sees it.
type process struct {
	t      *testing.T
	proc   *launch.Process
	conn   *wire.Conn // nil without a parent
	socks  map[string]string
	fds    map[string]int
	states []wire.State // as far as they were read
	out    string       // a file
	exit   launch.Status
	ended  bool
}

// spec says how a process is started.
type spec struct {
	app     string
	sockets []string       // inherited, unless env says otherwise
	fds     map[string]int // theirs; by default listening sockets are made
	env     []string
	alone   bool  // without a parent
	stderr  int   // default: the process's output
	first   int   // descriptor 3, if there is no socket
	passed  []int // descriptors 3, … where it is alone, with its pid in LISTEN_PID
	queue   []int // the two ends of that of the socket "http"
}

// begin starts a process and sees to its end.
func begin(t *testing.T, s spec) *process {
	t.Helper()
	p := &process{t: t, socks: map[string]string{}, fds: map[string]int{}, out: filepath.Join(t.TempDir(), "output")}
	out, err := os.Create(p.out)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	outFd, err := launch.Fd(out)
	if err != nil {
		t.Fatal(err)
	}
	if s.stderr == 0 {
		s.stderr = outFd
	}
	fds := []int{outFd, outFd, s.stderr}
	env := append(os.Environ(), "GORACE=atexit_sleep_ms=0", envApp+"="+s.app)
	for _, name := range s.sockets {
		if fd, ok := s.fds[name]; ok {
			p.fds[name] = fd
		} else {
			p.fds[name], p.socks[name] = heldSocket(t)
		}
		fds = append(fds, p.fds[name])
	}
	if s.first != 0 {
		fds = append(fds, s.first)
	}
	if !s.alone {
		ours, theirs, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		defer theirs.Close()
		if p.conn, err = wire.NewConn(ours); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { p.conn.Close() })
		fd, err := launch.Fd(theirs)
		if err != nil {
			t.Fatal(err)
		}
		env = append(env, fmt.Sprintf("%s=%d", wire.Env, len(fds)), "HANDOVER_WORKER=web/2/7/3",
			fmt.Sprintf("LISTEN_FDS=%d", len(s.sockets)), "LISTEN_FDNAMES="+strings.Join(s.sockets, ":"))
		fds = append(fds, fd)
	}
	if s.queue != nil {
		env = append(env, fmt.Sprintf("%s=http=%d,%d", wire.EnvQueues, len(fds), len(fds)+1))
		fds = append(fds, s.queue...)
	}
	path, args := launch.Self, []string{"worker"}
	if s.passed != nil {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		path, args = "/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, exe}
		fds = append(fds, s.passed...)
	}
	p.proc, err = launch.Start(launch.Spec{Path: path, Args: args, Env: append(env, s.env...), Fds: fds, Setsid: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !p.ended {
			_ = p.proc.Signal(syscall.SIGKILL)
			p.proc.Wait()
		}
		p.proc.Close()
		if t.Failed() {
			t.Logf("it said %+v and wrote:\n%s", p.states, p.output())
		}
	})
	return p
}

// serving starts one with a parent that has told it to serve its sockets.
func serving(t *testing.T, app string, env ...string) *process {
	t.Helper()
	p := begin(t, spec{app: app, sockets: []string{"http"}, env: env})
	p.phase(wire.PhaseReady)
	p.tell(wire.CmdGo)
	p.phase(wire.PhaseServing)
	return p
}

func (p *process) output() string {
	b, _ := os.ReadFile(p.out)
	return string(b)
}

// tell sends an order.
func (p *process) tell(cmd string) { p.send(wire.Order{Cmd: cmd}) }

func (p *process) drain(timeout time.Duration, exit bool) {
	p.t.Helper()
	p.send(wire.Drain{Cmd: wire.CmdDrain, TimeoutMS: timeout.Milliseconds(), Exit: exit})
}

func (p *process) send(v any) {
	p.t.Helper()
	if err := p.conn.Send(v); err != nil {
		p.t.Fatal(err)
	}
}

// next reads what the worker says next; io.EOF is its end.
func (p *process) next() (wire.State, error) {
	var st wire.State
	_ = p.conn.SetReadDeadline(time.Now().Add(patience))
	line, err := p.conn.Read()
	if err != nil {
		return st, err
	}
	if err := json.Unmarshal(line, &st); err != nil || st.Cmd != wire.CmdState {
		p.t.Fatalf("%s: %v", line, err)
	}
	p.states = append(p.states, st)
	return st, nil
}

// until reads states until one is ok.
func (p *process) until(ok func(wire.State) bool) wire.State {
	p.t.Helper()
	for {
		st, err := p.next()
		if err != nil {
			p.t.Fatalf("it does not say that: %v", err)
		}
		if ok(st) {
			return st
		}
	}
}

func (p *process) phase(want wire.Phase) wire.State {
	p.t.Helper()
	return p.until(func(st wire.State) bool { return st.Phase == want })
}

func (p *process) cause(want wire.Cause) wire.State {
	p.t.Helper()
	return p.until(func(st wire.State) bool { return st.Cause == want })
}

// wait waits for the process's end and returns its last word, if it has a parent.
func (p *process) wait() wire.State {
	p.t.Helper()
	var last wire.State
	for p.conn != nil {
		st, err := p.next()
		if errors.Is(err, io.EOF) || errors.Is(err, os.ErrClosed) {
			break
		}
		if err != nil {
			p.t.Fatalf("it does not end: %v", err)
		}
		last = st
	}
	kill := time.AfterFunc(patience, func() { _ = p.proc.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	p.exit, p.ended = p.proc.Wait(), true
	return last
}

// exits waits and checks the exit status.
func (p *process) exits(want string) wire.State {
	p.t.Helper()
	last := p.wait()
	if p.exit.String() != want {
		p.t.Errorf("%v, not %s", p.exit, want)
	}
	return last
}

func (p *process) signal(sig syscall.Signal) {
	p.t.Helper()
	if err := p.proc.Signal(sig); err != nil {
		p.t.Fatal(err)
	}
}

var client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}

// get asks a socket and returns the answer.
func (p *process) get(path string) string {
	p.t.Helper()
	body, err := p.try(path)
	if err != nil {
		p.t.Fatal(err)
	}
	return body
}

func (p *process) try(path string) (string, error) {
	resp, err := client.Get("http://" + p.socks["http"] + path)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return strings.TrimSpace(string(b)), err
}

// hold begins a request that lasts until the function that it returns is called.
func (p *process) hold() (end func() error) {
	p.t.Helper()
	r, w := io.Pipe()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+p.socks["http"]+"/hold", r)
	if err != nil {
		p.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { cancel(); resp.Body.Close(); w.Close() })
	return func() error {
		w.Close()
		b, err := io.ReadAll(resp.Body)
		if err == nil && !bytes.HasSuffix(b, []byte("end\n")) {
			err = fmt.Errorf("the answer is %q", b)
		}
		return err
	}
}

// heldSocket is a listening socket as a parent holds it.
func heldSocket(t *testing.T) (fd int, addr string) {
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
