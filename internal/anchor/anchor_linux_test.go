package anchor

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExitStatus(t *testing.T) {
	t.Parallel()
	for cmd, want := range map[string]int{
		"exit 0": 0, "exit 1": 1, "exit 77": 77, "exit 255": 255,
		"kill 9": 128 + 9, "kill 15": 128 + 15, "kill 1": 128 + 1,
	} {
		t.Run(cmd, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.tell("%s", cmd)
			w.exit(want)
		})
	}
}

// What comes before READY=1 waits for it, except what has to work then, too.
func TestSignals(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	if got := a.ask("group"); got != strconv.Itoa(a.pid) {
		t.Errorf("process group %s of process %d", got, a.pid)
	}
	if got := a.ask("env " + EnvPid); got != strconv.Itoa(w.anchor.Pid) {
		t.Errorf("the anchor's pid is said to be %q, it is %d", got, w.anchor.Pid)
	}
	w.signal(syscall.SIGHUP)
	w.signal(syscall.SIGTERM)
	a.expect("signal SIGTERM")
	w.signal(syscall.SIGUSR1)
	w.signal(syscall.SIGQUIT)
	a.expect("signal SIGQUIT")
	a.tell("notify READY=1")
	got := []string{a.next(), a.next(), a.next()}
	slices.Sort(got)
	if want := []string{"notified", "signal SIGHUP", "signal SIGUSR1"}; !slices.Equal(got, want) {
		t.Errorf("after READY=1: %q", got)
	}
	for _, sig := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGHUP, syscall.SIGINT, syscall.SIGWINCH, syscall.SIGUSR1} {
		w.signal(sig)
		a.expect("signal " + unix.SignalName(sig))
	}
	a.tell("exit 0")
	w.exit(0)
}

// Of one that comes twice before anybody can act on it, one is kept.
func TestKeep(t *testing.T) {
	t.Parallel()
	var a anchor
	for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGHUP} {
		a.keep(sig)
	}
	if want := []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1}; !slices.Equal(a.early, want) {
		t.Errorf("kept %v", a.early)
	}
}

// A storm of signals does not keep a stop from the parent.
func TestSignalStorm(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	for range 2000 {
		for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGCHLD} {
			w.signal(sig)
		}
	}
	w.signal(syscall.SIGTERM)
	for a.next() != "signal SIGTERM" {
		if t.Failed() {
			t.FailNow()
		}
	}
	a.tell("exit 0")
	w.exit(0)
}

// An upgrade: the parent names its successor, which is the parent's child and
// then the anchor's.
func TestSuccession(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	for range 3 {
		b := w.spawn(a)
		a.notify("MAINPID=" + strconv.Itoa(b.pid))
		w.signal(syscall.SIGHUP)
		b.expect("signal SIGHUP")
		a.tell("exit 0")
		a.gone()
		w.signal(syscall.SIGHUP)
		b.expect("signal SIGHUP")
		a = b
	}
	a.tell("exit 7")
	w.exit(7)
}

// A stop that the old parent gets and the new one decides about.
func TestStopInSuccession(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	b := w.spawn(a)
	w.signal(syscall.SIGINT)
	a.expect("signal SIGINT")
	b.tell("ping")
	b.expect("pong")
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	b.expect("signal SIGINT")
	a.tell("exit 0")
	a.gone()
	w.signal(syscall.SIGTERM) // the second one comes once
	b.expect("signal SIGTERM")
	b.tell("exit 3")
	w.exit(3)
}

// Who is not the parent names nobody, and the parent nobody who is not its own.
func TestStrangers(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	b := w.spawn(a)
	b.notify("READY=1") // it is not its to say: HUP waits on
	w.signal(syscall.SIGHUP)
	w.signal(syscall.SIGTERM)
	a.expect("signal SIGTERM")
	a.tell("notify READY=1")
	if one, two := a.next(), a.next(); one == two || one != "notified" && two != "notified" {
		t.Errorf("after READY=1: %q, %q", one, two)
	}

	b.notify("MAINPID=" + strconv.Itoa(os.Getpid()))
	b.claim()
	stranger(t, a.ask("env NOTIFY_SOCKET"), fmt.Sprintf("MAINPID=%d\nREADY=1", os.Getpid()))
	for _, pid := range []string{"1", strconv.Itoa(os.Getpid()), strconv.Itoa(w.anchor.Pid), "0", "-1", "x", "", "4294967297"} {
		a.notify("MAINPID=" + pid)
	}
	w.signal(syscall.SIGHUP)
	a.expect("signal SIGHUP")
	b.tell("exit 0") // its wish to be the parent goes with it
	if !until(func() bool { return !alive(b.pid) }) {
		t.Errorf("process %d does not end", b.pid)
	}
	a.tell("exit 4")
	w.exit(4)
}

// stranger sends a notification from outside.
func stranger(t *testing.T, addr, text string) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Sendto(fd, []byte(text), 0, &unix.SockaddrUnix{Name: addr}); err != nil {
		t.Fatal(err)
	}
}

// The parent dies in an upgrade: its successor speaks for itself, before or after
// the anchor has learnt of the death.
func TestSuccessorAlone(t *testing.T) {
	t.Parallel()
	t.Run("after", func(t *testing.T) {
		t.Parallel()
		w, a := start(t)
		a.notify("READY=1")
		b := w.spawn(a, markSuccessor+"3")
		a.tell("kill 9")
		a.gone()
		w.logged("is waited for")
		w.signal(syscall.SIGHUP) // for whoever comes
		w.signal(syscall.SIGTERM)
		w.logged("another INT or TERM kills it")
		b.tell("notify MAINPID=%d|READY=1", b.pid)
		got := []string{b.next(), b.next(), b.next()}
		slices.Sort(got)
		if want := []string{"notified", "signal SIGHUP", "signal SIGTERM"}; !slices.Equal(got, want) {
			t.Errorf("the successor got %q", got)
		}
		b.tell("exit 3")
		w.exit(3)
	})
	t.Run("before", func(t *testing.T) {
		t.Parallel()
		w, a := start(t) // not even ready
		b := w.spawn(a)
		b.claim()
		a.notify("STATUS=heard after that")
		w.signal(syscall.SIGTERM) // is still the parent's
		a.expect("signal SIGTERM")
		a.tell("kill 9")
		a.gone()
		w.logged("its successor takes over")
		b.expect("signal SIGTERM") // of which the parent has made nothing
		w.signal(syscall.SIGHUP)
		b.expect("signal SIGHUP")
		b.tell("exit 3")
		w.exit(3)
	})
}

// The successor dies when the old parent still lives, so that it is not the anchor
// that reaps it.
func TestSuccessorDies(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name       string
		dead, reap bool // before it is named; by the parent
	}{{"reaped", false, true}, {"zombie", false, false}, {"named late", true, true}} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.notify("READY=1")
			b := w.spawn(a)
			end := func() {
				b.tell("kill 9")
				b.gone()
				if c.reap {
					if got := a.ask("reap %d", b.pid); got != "killed by SIGKILL" {
						t.Errorf("reaped: %s", got)
					}
				}
			}
			if c.dead {
				end()
			}
			a.notify("MAINPID=" + strconv.Itoa(b.pid))
			if !c.dead {
				end()
			}
			a.tell("exit 0")
			next := w.accept() // the service goes on
			next.notify("READY=1")
			next.tell("exit 7")
			w.logged("another one is started")
			w.exit(7)
		})
	}
}

// An upgrade fails after the parent has named its successor: the parent goes on.
func TestTakeBack(t *testing.T) {
	t.Parallel()
	for _, named := range []string{"alive", "dead"} {
		t.Run(named, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.notify("READY=1")
			b := w.spawn(a)
			if named == "alive" {
				a.notify("MAINPID=" + strconv.Itoa(b.pid))
			}
			b.tell("exit 1")
			if got := a.ask("reap %d", b.pid); got != "exit status 1" {
				t.Errorf("reaped: %s", got)
			}
			if named == "dead" {
				a.notify("MAINPID=" + strconv.Itoa(b.pid))
			}
			w.signal(syscall.SIGHUP) // whoever the parent is
			a.tell("notify MAINPID=%d", a.pid)
			got := []string{a.next(), a.next()}
			slices.Sort(got)
			if want := []string{"notified", "signal SIGHUP"}; !slices.Equal(got, want) {
				t.Errorf("the parent got %q", got)
			}
			w.signal(syscall.SIGTERM)
			a.expect("signal SIGTERM")
			a.tell("exit 0")
			w.exit(0)
		})
	}
}

// A successor dies, and the old parent neither goes nor says that it goes on: it is not
// waited for any longer, and must not decide when it comes to.
func TestSuccessorDiesAlone(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	b := w.spawn(a)
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	b.tell("kill 9")
	if got := a.ask("reap %d", b.pid); got != "killed by SIGKILL" {
		t.Errorf("reaped: %s", got)
	}
	c := w.accept()
	c.notify("READY=1")
	a.tell("notify MAINPID=%d", a.pid)
	w.logged("given up")
	c.tell("exit 7")
	w.exit(7)
}

// What a killed parent leaves drains by itself, and is killed after a time, with
// what it has started.
func TestLeftovers(t *testing.T) {
	t.Parallel()
	t.Run("drain", func(t *testing.T) {
		t.Parallel()
		w, a := start(t)
		b := w.spawn(a)
		a.tell("kill 9")
		w.logged("what it left drains")
		b.tell("exit 0")
		w.exit(128 + 9)
	})
	t.Run("grace", func(t *testing.T) {
		t.Parallel()
		w, a := start(t, envGrace+"=1ms")
		b := w.spawn(a)
		c := w.spawn(b)
		d := w.spawn(c)
		a.tell("kill 9")
		for _, p := range []*actor{b, c, d} {
			p.gone()
		}
		w.exit(128 + 9)
	})
	t.Run("two stops", func(t *testing.T) {
		t.Parallel()
		w, a := start(t)
		b := w.spawn(a)
		a.tell("kill 9")
		w.logged("what it left drains")
		w.signal(syscall.SIGINT)
		w.logged("another INT or TERM kills it")
		if got := b.ask("ping"); got != "pong" {
			t.Errorf("after the first INT: %q", got)
		}
		w.signal(syscall.SIGTERM)
		b.gone()
		w.exit(128 + 9)
	})
	t.Run("one before, one after", func(t *testing.T) {
		t.Parallel()
		w, a := start(t)
		b := w.spawn(a)
		w.signal(syscall.SIGTERM)
		a.expect("signal SIGTERM")
		a.tell("exit 5")
		w.logged("what it left drains")
		w.signal(syscall.SIGINT)
		b.gone()
		w.exit(5)
	})
}
