//go:build linux

package upgrader

import (
	"context"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// failure is a new program that can't take over.
type failure struct {
	name    string
	prepare func(s *site)
	timeout time.Duration // of the upgrade; patience by default
	is      string        // the sentinel that the error is
	cause   string        // what Err says, if it is not the sentinel
	status  string        // how the process ended, "" if there was none
	reason  string
	output  string // part of it
}

func script(text string) func(*site) {
	return func(s *site) { s.put("server", []byte(text), 0o755) }
}

func mode(m string) func(*site) {
	return func(s *site) { s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}, Mode: m}) }
}

var failures = []failure{
	{name: "missing", is: "not exist", prepare: func(s *site) { os.Remove(s.program) }},
	{name: "a directory", cause: `is a directory`, prepare: func(s *site) {
		os.Remove(s.program)
		os.Mkdir(s.program, 0o755)
	}},
	{name: "not executable", is: "permission", cause: "has no x", prepare: func(s *site) { s.put("server", []byte("#!/bin/sh\n"), 0o644) }},
	{name: "text", is: "not executable", cause: "neither a program for this machine nor a script", prepare: script("hello\n")},
	{name: "header only", is: "not executable", prepare: func(s *site) { s.put("server", s.binary()[:50], 0o755) }},
	{name: "truncated", is: "not executable", cause: "a truncated program, ", prepare: func(s *site) {
		b := s.binary()
		s.put("server", b[:len(b)/2], 0o755)
	}},
	{name: "no interpreter", is: "not exist", prepare: script("#!/no/such/shell\n")},
	{name: "exit 3", is: "ended", status: "exit status 3", output: "sorry", prepare: script("#!/bin/sh\necho sorry >&2\nexit 3\n")},
	{name: "exit 0", is: "ended", status: "exit status 0", output: "done", prepare: script("#!/bin/sh\necho done\n")},
	{name: "much output", is: "ended", status: "exit status 1", output: "x\nend",
		prepare: script("#!/bin/sh\nyes xxxxxxxx | head -n 20000\necho end\nexit 1\n")},
	{name: "panic", is: "ended", status: "exit status 2", output: "panic: no such luck", prepare: mode("panic")},
	{name: "hang", is: "timeout", status: "killed by SIGKILL", timeout: 150 * time.Millisecond,
		prepare: script("#!/bin/sh\nsleep 1000 &\nsleep 1000\n")},
	{name: "fail", is: "rejected", status: "exit status 4", reason: "the database has no tables", output: "the last words", prepare: mode("fail")},
	{name: "foreign", is: "foreign", status: "killed by SIGKILL", prepare: mode("bare")},
	{name: "garbage", cause: "succession: json", status: "killed by SIGKILL", prepare: mode("garbage")},
	{name: "another version", is: "version", status: "killed by SIGKILL", prepare: mode("future")},
	{name: "address in use", is: "ended", status: "exit status 1", output: "bind: address already in use", prepare: func(s *site) {
		s.configure(settings{Listen: []string{"tcp://127.0.0.1:0", "more=tcp://" + s.taken}})
	}},
}

// Ten times in a row each, whatever it is, nothing changes: the service serves,
// leaks nothing, leaves nothing behind, and can still upgrade.
func TestFailures(t *testing.T) {
	t.Parallel()
	for _, f := range failures {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, settings{})
			r := s.start()
			addr := r.addr()
			s.taken = addr
			f.prepare(s)
			if f.timeout == 0 {
				f.timeout = patience
			}
			// The first time shows that the service has come up altogether.
			f.check(t, r.tryUpgrade(r.pid, f.timeout))
			before := r.stats()
			for range 10 {
				f.check(t, r.tryUpgrade(r.pid, f.timeout))
				r.serves(addr)
				if n := signalMarked(s.mark, 0, nil); n != 1 {
					t.Fatalf("%d processes are left, not the one that serves", n)
				}
			}
			// A leak would be one for each time. What the service has started for the
			// first time meanwhile is less.
			until(t, "no more descriptors and goroutines than before", func() bool {
				after := r.stats()
				return len(after.FDs) < len(before.FDs)+5 && after.Goroutines < before.Goroutines+5
			})
			os.Remove(s.program)
			s.install(s.program)
			s.configure(settings{Listen: []string{"tcp://127.0.0.1:0"}})
			r.upgrade()
			r.serves(addr)
			r.stop()
		})
	}
}

func (f failure) check(t *testing.T, a answer) {
	t.Helper()
	e := a.Failed
	switch {
	case e == nil, f.is != "" && !a.is(f.is), !strings.Contains(a.Cause, f.cause),
		e.Started != (f.status != ""), e.Started != (e.Pid > 0), !strings.HasPrefix(e.Status, f.status),
		e.Reason != f.reason, !strings.Contains(e.Output, f.output), len(e.Output) > 2*outputKept+40:
		t.Fatalf("%+v\n%+v", a, e)
	case !strings.Contains(a.Err, e.Status), !strings.Contains(a.Err, f.reason), !strings.Contains(a.Err, strings.TrimSpace(f.output)):
		t.Fatalf("the message does not say it all: %s", a.Err)
	}
}

// binary is the content of the test binary.
func (s *site) binary() []byte {
	s.t.Helper()
	b, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		s.t.Fatal(err)
	}
	return b
}

// What a process that hangs has started goes with it, also when the caller gives
// up, and its output says where it was.
func TestCanceled(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	s.put("server", []byte("#!/bin/sh\nsh -c 'sleep 1000 & sleep 1000' &\necho hanging\nsleep 1000\n"), 0o755)
	for i := range 3 {
		ctx, cancel := context.WithCancel(t.Context())
		stop := context.AfterFunc(ctx, func() {})
		done := make(chan struct{})
		go func() { defer close(done); _, _ = r.ask(ctx, r.pid, "/upgrade") }()
		until(t, "it hangs", func() bool { return r.lines("hanging\n") == i+1 })
		until(t, "it has started others", func() bool { return signalMarked(s.mark, 0, nil) >= 3 })
		cancel()
		<-done
		stop()
		until(t, "the upgrade has ended", func() bool {
			return r.lines("control: not upgraded: ") == i+1
		})
		if n := signalMarked(s.mark, 0, nil); n != 1 {
			t.Errorf("%d processes are left, not the one that serves", n)
		}
	}
	if want := "context canceled (pid "; !strings.Contains(r.out.String(), want) {
		t.Errorf("no %q", want)
	}
	r.stop()
}

// A process that hangs up or says that it gives up, and stays, is not waited for
// until the timeout.
func TestLingering(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	mode("fail and stay")(s)
	a := r.tryUpgrade(r.pid, patience)
	if !a.is("rejected") || a.Failed.Reason != "I am not leaving" || a.Failed.Status != "killed by SIGKILL" {
		t.Errorf("%+v", a)
	}
	r.stop()
}

// The new process's own idea of why it ends reaches whoever asked.
func TestNeighbourFails(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{Yield: "wait"})
	r := s.start()
	mode("neighbour")(s)
	answers := make(chan answer, 1)
	go func() { answers <- r.tryUpgrade(r.pid, patience) }()
	r.await("service: the cache is cold\n")
	if _, err := r.ask(t.Context(), r.pid, "/release"); err != nil {
		t.Error(err)
	}
	if a := <-answers; !a.is("rejected") || a.Failed.Reason != "the cache is cold" || a.Failed.Status != "exit status 1" {
		t.Errorf("%+v", a)
	}
	r.stop()
}

// Config.Timeout bounds an upgrade whose caller does not.
func TestTimeout(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{Timeout: 100 * time.Millisecond})
	r := s.start()
	mode("hang")(s)
	if a := r.tryUpgrade(r.pid, patience); !a.is("timeout") || a.Failed.Status != "killed by SIGKILL" {
		t.Errorf("%+v", a)
	}
	r.stop()
}

// A program that upgrades by tableflip alone can't be succeeded, and is told so.
func TestBareTableflip(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	s.runs = "bare"
	r := s.launch()
	r.await("service: upgrader: " + errBareTableflip.Error() + "\n")
	r.await("bare: child pid=")
}

// The variable by which tableflip knows a successor, inherited from further up,
// does not make one.
func TestStaleVariable(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	s.env = []string{tableflipEnv + "=yes"}
	r := s.start()
	r.upgrade()
	r.stop()
}

// A stop in the middle of an upgrade ends the upgrade.
func TestStopDuringUpgrade(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	mode("hang")(s)
	r.signal(syscall.SIGHUP)
	r.await("hanging\n")
	r.stop()
	if out := r.out.String(); !strings.Contains(out, "HUP not upgraded: ") || r.first.Wait().Code != 0 {
		t.Errorf("status %v", r.first.Wait())
	}
}

// HUPs that arrive during an upgrade lead to one more.
func TestHUPs(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	s.put("server", []byte("#!/bin/sh\necho here\nread line <go\nexit 5\n"), 0o755)
	if err := syscall.Mkfifo(s.dir+"/go", 0o600); err != nil {
		t.Fatal(err)
	}
	r.signal(syscall.SIGHUP)
	r.await("here\n")
	for range 5 {
		r.signal(syscall.SIGHUP)
	}
	for i := range 2 {
		until(t, "it has begun", func() bool { return r.lines("here\n") == i+1 })
		if err := os.WriteFile(s.dir+"/go", []byte("\n"), 0); err != nil {
			t.Fatal(err)
		}
		until(t, "it has failed", func() bool { return r.lines("HUP not upgraded") == i+1 })
	}
	r.stop()
	if n := r.lines("here\n"); n != 2 {
		t.Errorf("%d upgrades", n)
	}
}
