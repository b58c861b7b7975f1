//go:build linux

package worker_test

import (
	"fmt"
	"net"
	"os"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

// phases are those that a worker went through, without repetitions. Quick ones may
// be missing: it says its state, not its history.
func (p *process) phases() []wire.Phase {
	var all []wire.Phase
	for _, st := range p.states {
		all = append(all, st.Phase)
	}
	return slices.Compact(all)
}

func TestLife(t *testing.T) {
	t.Parallel()
	p := serving(t, "serve")
	if got := p.get("/"); got != "ok" {
		t.Error(got)
	}
	end := p.hold()
	p.tell(wire.CmdWho)
	st := p.until(func(st wire.State) bool { return st.Served == 2 })
	if st.Pid != p.proc.Pid || st.Group != "web" || st.Slot != 2 || st.ID != 7 || st.Generation != 3 || st.Version != wire.Version {
		t.Errorf("%+v", st)
	}
	p.drain(time.Minute, false)
	p.phase(wire.PhaseDraining)
	if err := end(); err != nil {
		t.Errorf("a request in flight: %v", err)
	}
	p.phase(wire.PhaseDrained) // and waits
	p.tell(wire.CmdExit)
	last := p.exits("exit status 0")
	if last.Phase != wire.PhaseExiting || last.ExitCode != 0 || last.Cause != "" || last.Served != 2 || last.Active != 0 {
		t.Errorf("its last word: %+v", last)
	}
	order := []wire.Phase{wire.PhaseStarting, wire.PhaseReady, wire.PhaseServing, wire.PhaseDraining, wire.PhaseDrained, wire.PhaseExiting}
	if got := p.phases(); !slices.IsSortedFunc(got, func(a, b wire.Phase) int { return slices.Index(order, a) - slices.Index(order, b) }) {
		t.Errorf("%v", got)
	}
	// The parent's socket is as it was: open, non-blocking, with its queue.
	if flags, err := unix.FcntlInt(uintptr(p.fds["http"]), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 {
		t.Errorf("flags %#x, %v", flags, err)
	}
	if c, err := net.Dial("tcp", p.socks["http"]); err != nil {
		t.Error(err)
	} else {
		c.Close()
	}
}

// TestAccepts: nothing is accepted before the worker is ready and may.
func TestAccepts(t *testing.T) {
	t.Parallel()
	for _, eager := range []bool{false, true} {
		for _, app := range []string{"two", "explicit"} {
			t.Run(fmt.Sprint(app, eager), func(t *testing.T) {
				t.Parallel()
				s := spec{app: app, sockets: []string{"http", "admin"}}
				if eager {
					s.env = []string{"HANDOVER_ACCEPT=1"}
				}
				p := begin(t, s)
				asked := make(chan error, 1)
				go func() {
					_, err := p.try("/")
					asked <- err
				}()
				control := p.control()
				p.tell(wire.CmdWho)
				// The answer, or what was said before.
				if st := p.phase(wire.PhaseStarting); st.Served != 0 {
					t.Error("it accepts")
				}
				select {
				case err := <-asked:
					t.Fatalf("it answers before it is ready: %v", err)
				default:
				}
				c, err := net.Dial("tcp", control)
				if err != nil {
					t.Fatal(err)
				}
				c.Close()
				if !eager {
					if st := p.phase(wire.PhaseReady); st.Served != 0 {
						t.Error("it accepts")
					}
					p.tell(wire.CmdGo)
				}
				p.phase(wire.PhaseServing)
				if err := <-asked; err != nil {
					t.Error(err)
				}
				p.drain(time.Minute, true)
				p.exits("exit status 0")
			})
		}
	}
}

// control waits for the address at which an app is told to go on.
func (p *process) control() string {
	p.t.Helper()
	_, rest, _ := strings.Cut(p.writes("control [^\n]*\n"), " ")
	return strings.TrimSpace(rest)
}

// writes waits until the process has written something, and returns it.
func (p *process) writes(re string) string {
	p.t.Helper()
	r := regexp.MustCompile(re)
	deadline := time.Now().Add(patience)
	for {
		if s := r.FindString(p.output()); s != "" {
			return s
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("it does not write %s", re)
		}
		runtime.Gosched()
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		path   string
		cause  wire.Cause
		reason string
	}{
		{"/fail", wire.CauseError, "first"},
		{"/failnil", wire.CauseError, "Fail was called without an error"},
		{"/panic", wire.CauseHandlerPanic, "unlucky handler, at GET /panic"},
		{"/gopanic", wire.CausePanic, "unlucky goroutine"},
	} {
		t.Run(c.path, func(t *testing.T) {
			t.Parallel()
			p := serving(t, "serve")
			end := p.hold()
			_, _ = p.try(c.path) // the panicking handler has no answer
			st := p.cause(c.cause)
			if !strings.Contains(st.Reason, c.reason) {
				t.Errorf("the reason is %q", st.Reason)
			}
			p.tell(wire.CmdHold)
			p.get("/") // it was heard, and goes on
			p.drain(time.Minute, false)
			p.phase(wire.PhaseDraining)
			if err := end(); err != nil {
				t.Errorf("a request in flight: %v", err)
			}
			p.phase(wire.PhaseDrained)
			p.tell(wire.CmdExit)
			last := p.exits("exit status 1")
			if last.ExitCode != 1 || last.Cause != c.cause || last.Reason != st.Reason {
				t.Errorf("its last word: %+v", last)
			}
		})
	}
}

func TestNoFailure(t *testing.T) {
	t.Parallel()
	p := serving(t, "serve")
	if _, err := p.try("/abort"); err == nil {
		t.Error("http.ErrAbortHandler did not abort")
	}
	p.get("/go")
	p.tell("NODE_HANDOVER_LATER")
	p.send([]int{1})
	p.send("hello")
	p.send(map[string]any{"cmd": 5})
	p.signal(syscall.SIGHUP) // the parent's
	p.get("/")
	p.drain(time.Minute, true)
	if last := p.exits("exit status 0"); last.Cause != "" {
		t.Errorf("%+v", last)
	}
}

func TestAppEnds(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		app   string
		cause wire.Cause
		why   string
		exit  string
	}{
		{"error", wire.CauseError, "no database", "exit status 1"},
		{"panic", wire.CausePanic, "no luck", "exit status 1"},
		{"unknown", wire.CauseError, `worker: no socket "htp": this worker has "admin", "http"`, "exit status 1"},
		{"taken", wire.CauseError, `worker: socket "http" is taken already`, "exit status 1"},
		{"nil", wire.CauseDone, "the app returned", "exit status 0"},
	} {
		t.Run(c.app, func(t *testing.T) {
			t.Parallel()
			p := begin(t, spec{app: c.app, sockets: []string{"http", "admin"}})
			st := p.cause(c.cause)
			if !strings.Contains(st.Reason, c.why) {
				t.Errorf("%q", st.Reason)
			}
			p.drain(time.Minute, true)
			p.exits(c.exit)
		})
	}
	t.Run("told to drain before it serves", func(t *testing.T) {
		t.Parallel()
		p := begin(t, spec{app: "waits", sockets: []string{"http"}})
		p.phase(wire.PhaseStarting)
		p.drain(time.Minute, true)
		if last := p.exits("exit status 0"); last.Cause != "" {
			t.Errorf("%+v", last)
		}
	})
	t.Run("ignores its context", func(t *testing.T) {
		t.Parallel()
		p := begin(t, spec{app: "ignores its context"})
		p.phase(wire.PhaseReady)
		p.drain(time.Millisecond, true)
		p.exits("exit status 0")
		if out := p.output(); !strings.Contains(out, "the app has not returned by the end of the drain") {
			t.Error(out)
		}
	})
}

func TestTerm(t *testing.T) {
	t.Parallel()
	t.Run("once", func(t *testing.T) {
		t.Parallel()
		p := serving(t, "serve")
		p.signal(syscall.SIGTERM)
		p.cause(wire.CauseRetire)
		p.tell(wire.CmdHold)
		p.get("/")
		p.drain(time.Minute, true)
		if last := p.exits("exit status 0"); last.Cause != wire.CauseRetire {
			t.Errorf("%+v", last)
		}
	})
	t.Run("then a failure", func(t *testing.T) {
		t.Parallel()
		p := serving(t, "serve")
		p.signal(syscall.SIGTERM)
		p.cause(wire.CauseRetire)
		p.tell(wire.CmdHold)
		p.get("/fail")
		p.cause(wire.CauseError)
		p.drain(time.Minute, true)
		p.exits("exit status 1")
	})
	t.Run("twice", func(t *testing.T) {
		t.Parallel()
		p := serving(t, "serve")
		end := p.hold()
		p.signal(syscall.SIGTERM)
		p.cause(wire.CauseRetire)
		p.signal(syscall.SIGINT)
		p.exits("exit status 130")
		if err := end(); err == nil {
			t.Error("the request in flight was not cut")
		}
	})
}

// TestNoParentAnyMore: whatever becomes of the parent, what is in flight is
// finished, and the worker ends.
func TestNoParentAnyMore(t *testing.T) {
	t.Parallel()
	for what, lose := range map[string]func(p *process){
		"gone":    func(p *process) { p.conn.Close() },
		"garbage": func(p *process) { write(p, "hello\n") },
		"too long": func(p *process) {
			junk := strings.Repeat("x", 64<<10)
			for range 17 {
				write(p, junk)
			}
		},
		"wrong types": func(p *process) { write(p, `{"cmd":"NODE_HANDOVER_DRAIN","timeout":"long"}`+"\n") },
		"descriptors": func(p *process) {
			if err := p.conn.Send(wire.Order{Cmd: wire.CmdWho}, os.Stdin); err != nil {
				p.t.Error(err)
			}
		},
	} {
		t.Run(what, func(t *testing.T) {
			t.Parallel()
			// Whoever read its log is gone, too.
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer w.Close()
			fd := 0
			if rc, err := w.SyscallConn(); err == nil {
				_ = rc.Control(func(n uintptr) { fd = int(n) })
			}
			p := begin(t, spec{app: "serve", sockets: []string{"http"}, stderr: fd})
			p.phase(wire.PhaseReady)
			p.tell(wire.CmdGo)
			p.phase(wire.PhaseServing)
			r.Close()
			end := p.hold()
			lose(p)
			if what != "gone" {
				p.phase(wire.PhaseDraining)
			}
			if err := end(); err != nil {
				t.Errorf("a request in flight: %v", err)
			}
			p.exits("exit status 0")
		})
	}
}

func write(p *process, text string) {
	p.t.Helper()
	rc, err := p.conn.SyscallConn()
	if err != nil {
		p.t.Fatal(err)
	}
	_ = rc.Write(func(fd uintptr) bool {
		var n int
		n, err = unix.SendmsgN(int(fd), []byte(text), nil, nil, unix.MSG_NOSIGNAL)
		text = text[max(n, 0):]
		return len(text) == 0 || err != nil && err != unix.EAGAIN
	})
	if err != nil && err != unix.EPIPE {
		p.t.Error(err)
	}
}

// TestNoAnswer: a parent that does not answer does not keep a failing worker.
func TestNoAnswer(t *testing.T) {
	t.Parallel()
	p := serving(t, "serve", envTimeout+"=50ms")
	p.get("/fail")
	p.cause(wire.CauseError)
	// After a second; then it waits for as long as a drain may take.
	p.until(func(st wire.State) bool { return st.Phase == wire.PhaseDraining || st.Phase == wire.PhaseDrained })
	p.exits("exit status 1")
	if out := p.output(); !strings.Contains(out, "nobody said that the replacement serves") {
		t.Error(out)
	}
}

// TestParentDoesNotRead: a full channel holds up neither the worker's work nor
// its end.
func TestParentDoesNotRead(t *testing.T) {
	t.Parallel()
	p := serving(t, "serve")
	p.get("/failbig")
	p.tell(wire.CmdHold) // else it drains after a second
	for range 50 {       // 64 KiB each
		p.tell(wire.CmdWho)
		p.get("/")
	}
	p.drain(time.Minute, true)
	kill := time.AfterFunc(patience, func() { _ = p.proc.Signal(syscall.SIGKILL) })
	defer kill.Stop()
	p.exit, p.ended = p.proc.Wait(), true
	if p.exit.String() != "exit status 1" {
		t.Error(p.exit)
	}
}

func TestCutIsTold(t *testing.T) {
	t.Parallel()
	p := serving(t, "serve")
	end := p.hold()
	p.drain(time.Millisecond, true)
	if last := p.exits("exit status 0"); last.Cut != 1 {
		t.Errorf("%+v", last)
	}
	if err := end(); err == nil {
		t.Error("it was not cut")
	}
}
