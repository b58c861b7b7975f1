package anchor

import (
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// hang is long enough for a process that has to say in that time that it lives, on a machine
// that is busy: these tests are about what does not happen for so long.
const hang = 3 * time.Second

// A parent that has said that it lives, and does so no more, is killed, and another one is
// started. One that never has is left alone, as one of another version is.
func TestHang(t *testing.T) {
	t.Parallel()
	w, a := start(t, envHang+"="+hang.String())
	if got := a.ask("env " + EnvHung); got != strconv.FormatInt(hang.Milliseconds(), 10) {
		t.Errorf("%s=%s", EnvHung, got)
	}
	a.notify("READY=1")
	<-time.After(hang * 5 / 4)
	if got := a.ask("ping"); got != "pong" {
		t.Fatalf("it is killed although it has never said that it lives: %q", got)
	}
	for range 4 { // together that is longer
		a.notify(Lives)
		<-time.After(hang / 3)
	}
	if err := syscall.Kill(a.pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	a.gone()
	w.logged("the parent hangs: killed")
	b := w.accept() // which says nothing at all
	b.gone()
	c := w.accept()
	c.notify(Lives)
	c.notify("READY=1")
	c.tell("exit 7")
	w.exit(7)
}

// Of another process nobody hears that the parent lives, and a successor has to say so itself
// before it is watched.
func TestHangOfSuccessor(t *testing.T) {
	t.Parallel()
	w, a := start(t, envHang+"="+hang.String())
	a.notify("READY=1", Lives)
	b := w.spawn(a)
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	a.tell("exit 0")
	a.gone()
	<-time.After(hang * 5 / 4)
	if got := b.ask("ping"); got != "pong" {
		t.Fatalf("it is killed although it has never said that it lives: %q", got)
	}
	b.tell("exit 3")
	w.exit(3)
}

// An anchor that was stopped itself does not take the parent for hung; nor one that is traced.
func TestHangOfAnchor(t *testing.T) {
	t.Parallel()
	w, a := start(t, envHang+"="+hang.String())
	a.notify("READY=1", Lives)
	for _, d := range []time.Duration{hang + 2*lateTime, hang + lateTime/2} {
		w.signal(syscall.SIGSTOP)
		<-time.After(d)
		w.signal(syscall.SIGCONT)
		<-time.After(hang / quarters / 2) // in which the anchor decides
		if got := a.ask("ping"); got != "pong" {
			t.Fatalf("%v: %q", d, got)
		}
		a.notify(Lives)
	}
	a.tell("exit 5")
	w.exit(5)
	if traced(unix.Getpid()) {
		t.Error("nobody traces this process")
	}
}
