package anchor

import (
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/sdnotify"
)

// supervisor is what supervises an anchor.
func supervisor(t *testing.T) *sdnotify.Inbox {
	t.Helper()
	in, err := sdnotify.NewInbox()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close() })
	return in
}

// told checks what the supervisor hears next, and from whom.
func (w *world) told(in *sdnotify.Inbox, want string) {
	w.t.Helper()
	n, err := in.Read()
	n.Done()
	if err != nil || n.Text != want || n.Pid != w.anchor.Pid {
		w.t.Errorf("the supervisor is told %q by %d (%v), want %q by the anchor, %d", n.Text, n.Pid, err, want, w.anchor.Pid)
	}
}

// What the parent says the supervisor hears from the anchor, and nothing else.
func TestForward(t *testing.T) {
	t.Parallel()
	in := supervisor(t)
	w, a := start(t, sdnotify.Env+"="+in.Addr())
	if got := a.ask("env " + sdnotify.Env); got == in.Addr() {
		t.Error("the parent speaks to the supervisor by itself")
	}
	b := w.spawn(a)
	b.notify("READY=1", "STATUS=not its to say")
	a.notify("READY=1", "STATUS=it serves", "MAINPID="+strconv.Itoa(a.pid))
	w.told(in, "READY=1\nSTATUS=it serves")
	a.notify("RELOADING=1", "MONOTONIC_USEC=5")
	w.told(in, "RELOADING=1\nMONOTONIC_USEC=5")
	a.notify("FDSTORE=1", "FDNAME=x") // nothing is left of it
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	a.notify("STATUS=from the one before")
	for _, say := range []string{"READY=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=7", "ERRNO=2", "STOPPING=1", "X_OWN=1"} {
		b.notify(say)
		w.told(in, say)
	}
	a.tell("exit 0")
	b.tell("exit 0")
	w.exit(0)
	if n, _, ok := in.Queued(); ok {
		t.Errorf("and at last: %q", n.Text)
	}
}

// What the parent has said before it ended is passed on, no matter of what the anchor
// learns first.
func TestForwardLastWords(t *testing.T) {
	t.Parallel()
	for range 10 {
		in := supervisor(t)
		w, a := start(t, sdnotify.Env+"="+in.Addr())
		a.notify("READY=1")
		w.told(in, "READY=1")
		w.signal(syscall.SIGSTOP)
		a.tell("bye STOPPING=1")
		a.gone()
		w.signal(syscall.SIGCONT)
		w.exit(0)
		if n, _, ok := in.Queued(); !ok || n.Text != "STOPPING=1" {
			t.Fatalf("the supervisor is told %q", n.Text)
		}
	}
}

// A supervisor that hangs does not keep a stop from the parent.
func TestForwardToNobody(t *testing.T) {
	t.Parallel()
	in := supervisor(t)
	w, a := start(t, sdnotify.Env+"="+in.Addr())
	a.notify("READY=1")
	w.told(in, "READY=1")
	if err := fill(in.Addr()); err != nil {
		t.Fatal(err)
	}
	for range 3 { // one may still find room
		a.notify("STATUS=nobody reads it")
	}
	w.logged("is not told what the parent says")
	w.signal(syscall.SIGTERM)
	a.expect("signal SIGTERM")
	w.signal(syscall.SIGSTOP)
	before := w.count("is not told what the parent says")
	for range 6 {
		if got := a.ask("say STATUS=and now at once"); got != "said" {
			t.Fatal(got)
		}
	}
	a.tell("exit 0")
	a.gone()
	w.signal(syscall.SIGCONT)
	w.exit(0)
	if n := w.count("is not told what the parent says") - before; n > 2 {
		t.Errorf("of what a dead parent has said, the supervisor is waited for %d times", n)
	}
}

// fill fills the queue of a socket, by one socket for each datagram: what one may have
// under way is limited, too.
func fill(addr string) error {
	for {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		err = unix.Sendto(fd, []byte("x"), unix.MSG_DONTWAIT, &unix.SockaddrUnix{Name: addr})
		unix.Close(fd)
		if err == unix.EAGAIN {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// What a supervisor expects of the anchor the parent does, and nobody what is expected
// of another process.
func TestWatchdogIsTheParents(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	activate(t, w, nil, "WATCHDOG_USEC=1000000", "WATCHDOG_PID=")
	a := w.accept()
	if got := a.ask("env WATCHDOG_USEC"); got != "1000000" {
		t.Errorf("WATCHDOG_USEC=%s", got)
	}
	a.tell("exit 0")
	w.exit(0)
	w = newWorld(t)
	activate(t, w, nil, "WATCHDOG_USEC=1000000", "WATCHDOG_PID=1")
	a = w.accept()
	if got := a.ask("env WATCHDOG_USEC"); got != "-" {
		t.Errorf("WATCHDOG_USEC=%s", got)
	}
	a.tell("exit 0")
	w.exit(0)
}
