package handover_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/procs"
	"github.com/handover-go/handover/internal/sdnotify"
)

// overseer is a supervisor with NotifyAccess=main: it hears the main process alone.
type overseer struct {
	t     *testing.T
	addr  string
	heard chan sdnotify.Note // what it hears, in order
	main  int
	notes []string // what until has seen
}

func newOverseer(t *testing.T) *overseer {
	t.Helper()
	inbox, err := sdnotify.NewInbox()
	if err != nil {
		t.Fatal(err)
	}
	o := &overseer{t: t, addr: inbox.Addr(), heard: make(chan sdnotify.Note, 10_000)}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			n, err := inbox.Read()
			if err != nil {
				return
			}
			n.Done()
			if !n.Says("BARRIER", "1") {
				o.heard <- n
			}
		}
	}()
	t.Cleanup(func() { inbox.Close(); <-done })
	return o
}

// next returns the next note within a time. One that is not the main process's is a
// fault: systemd would log it.
func (o *overseer) next(patience time.Duration) (sdnotify.Note, bool) {
	o.t.Helper()
	select {
	case n := <-o.heard:
		if o.main == 0 {
			o.main = n.Pid
		}
		if n.Pid != o.main {
			o.t.Errorf("process %d, which is not the main one, %d, says %q", n.Pid, o.main, n.Text)
		}
		if v, ok := n.Get("MAINPID"); ok {
			o.main, _ = strconv.Atoi(v)
		}
		o.notes = append(o.notes, n.Text)
		return n, true
	case <-time.After(patience):
		return sdnotify.Note{}, false
	}
}

// until waits for a note that has all of these parts, and returns it.
func (o *overseer) until(parts ...string) string {
	o.t.Helper()
	for deadline := time.Now().Add(30 * time.Second); ; {
		n, ok := o.next(time.Until(deadline))
		switch {
		case !ok || time.Now().After(deadline):
			o.t.Fatalf("no note with %q, but %q", parts, o.notes[max(0, len(o.notes)-20):])
		case has(parts...)(n.Text):
			return n.Text
		}
	}
}

// TestSupervisor is a service's life as its supervisor hears of it.
func TestSupervisor(t *testing.T) {
	t.Parallel()
	o := newOverseer(t)
	s := startService(t, 2, sdnotify.Env+"="+o.addr, sdnotify.EnvWatchdog+"=400000")
	t.Cleanup(func() { _ = syscall.Kill(o.main, syscall.SIGKILL) })
	o.until(fmt.Sprintf("MAINPID=%d", s.pid), "READY=1")
	o.until("STATUS=generation 1: 2 of 2 workers serve")
	o.until("WATCHDOG=1")

	first := o.main
	s.signal(syscall.SIGHUP)
	o.until("RELOADING=1", "MONOTONIC_USEC=")
	o.until("MAINPID=", "READY=1")
	if o.main == first {
		t.Error("the main process is the same after an upgrade")
	}
	s.pid = o.main
	o.until("STATUS=generation 2: 2 of 2 workers serve; upgraded ")
	o.until("WATCHDOG=1") // by the new one

	second := o.main
	s.replace(func(tmp string) error { return os.WriteFile(tmp, []byte("#!/bin/sh\nexit 1\n"), 0o755) })
	s.signal(syscall.SIGHUP)
	o.until("RELOADING=1", "MONOTONIC_USEC=")
	o.until("READY=1")
	o.until("STATUS=generation 2: 2 of 2 workers serve; upgrade to generation 3 failed ", "exit status ") // which is known once it is reaped, by the supervisor
	if o.main != second {
		t.Error("the main process is another after an upgrade that has failed")
	}

	// Workers that do nothing are no service, though the parent is well.
	workers, err := procs.Descendants(o.main)
	if err != nil || len(workers) != 2 {
		t.Fatalf("%d workers, %v", len(workers), err)
	}
	signal := func(sig syscall.Signal) {
		t.Helper()
		for _, w := range workers {
			if err := syscall.Kill(w.PID, sig); err != nil {
				t.Error(err)
			}
		}
	}
	signal(syscall.SIGSTOP)
	for i, quiet := 0, false; !quiet; i++ { // for longer than a supervisor would wait
		_, hears := o.next(800 * time.Millisecond)
		if quiet = !hears; i > 100 {
			t.Error("all workers are stopped, and the service says that it lives")
			break
		}
	}
	signal(syscall.SIGCONT)
	o.until("WATCHDOG=1")

	s.signal(syscall.SIGTERM)
	n := o.until("STOPPING=1", "EXTEND_TIMEOUT_USEC=")
	if i := slices.IndexFunc(o.notes, has("STOPPING=1")); o.notes[i] != n {
		t.Error("it stops twice")
	}
	<-s.printed // by nobody any more
}

// TestSupervisorErrno: a service that can't start says why, in a number, too.
func TestSupervisorErrno(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	o := newOverseer(t)
	bin := filepath.Join(t.TempDir(), serviceName)
	install(t, bin)
	cmd := exec.Command(bin)
	cmd.Env = []string{"TEST_LISTEN=http=tcp://" + taken.Addr().String(), sdnotify.Env + "=" + o.addr}
	s := startCommand(t, cmd)
	n := o.until("STATUS=", "address already in use")
	if !strings.HasPrefix(n, fmt.Sprintf("ERRNO=%d\n", syscall.EADDRINUSE)) {
		t.Errorf("%q", n)
	}
	s.awaitExit(1)
}
