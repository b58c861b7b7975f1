package anchor

import (
	"strings"
	"syscall"
	"testing"
)

// A parent that dies is started again, with the sockets that the one before had bound, and
// what it left drains meanwhile.
func TestRestart(t *testing.T) {
	t.Parallel()
	for _, how := range []string{"kill 9", "exit 2"} { // a Go program that panics exits with 2
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.notify("READY=1")
			for _, name := range []string{"web", "old", "dns"} {
				if got := a.ask("bind %s", name); got != "bound <nil>" {
					t.Fatal(got)
				}
			}
			a.notify("FDSTOREREMOVE=1", "FDNAME=old")
			left := w.spawn(a)
			want := ""
			for range 3 {
				a.tell(how)
				a.gone()
				a = w.accept()
				w.signal(syscall.SIGHUP) // waits until it is ready
				got := a.ask("passed")
				if f := strings.Fields(got); want == "" {
					want = got
					if len(f) != 3 || !strings.HasPrefix(f[1], "web@127.0.0.1:") || !strings.HasPrefix(f[2], "dns@127.0.0.1:") {
						t.Errorf("it was started with %q", got)
					}
				}
				if got != want {
					t.Errorf("it was started with %q, and before with %q", got, want)
				}
				a.tell("notify READY=1")
				if one, two := a.next(), a.next(); one != "signal SIGHUP" && two != "signal SIGHUP" {
					t.Errorf("it got %q, %q", one, two)
				}
				if got := left.ask("ping"); got != "pong" {
					t.Errorf("what the dead parent has left: %q", got)
				}
			}
			a.tell("exit 1") // has given up
			left.tell("exit 0")
			w.exit(1)
		})
	}
}

// Nobody takes the place of a parent that is to end.
func TestNoRestart(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		stop bool
		how  string
		code int
	}{
		"asked to stop": {true, "kill 9", 128 + 9}, "in order": {false, "exit 0", 0}, "has given up": {false, "exit 1", 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.notify("READY=1")
			if c.stop {
				w.signal(syscall.SIGTERM)
				a.expect("signal SIGTERM")
			}
			a.tell(c.how)
			w.exit(c.code)
		})
	}
}

// A parent that has said that it stops, and is dead before that is read, has stopped.
func TestNoRestartAfterLastWord(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	w.signal(syscall.SIGSTOP)
	a.tell("last STOPPING=1")
	a.gone()
	w.signal(syscall.SIGCONT)
	w.exit(128 + 9)
}

// One that has said that it serves, and is dead before that is read, has served.
func TestRestartAfterFirstWord(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	w.signal(syscall.SIGSTOP)
	a.tell("last READY=1")
	a.gone()
	w.signal(syscall.SIGCONT)
	b := w.accept()
	b.notify("READY=1")
	b.tell("exit 0")
	w.exit(0)
}

// What a successor has said since it knows of its parent's death counts, too, when the anchor
// learns of all that together.
func TestRestartAfterSuccession(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	b := w.spawn(a, markSuccessor+"3")
	w.signal(syscall.SIGSTOP)
	a.tell("last STATUS=a last word")
	a.gone()
	b.claim()
	b.tell("bind web") // waits until the anchor has that
	w.signal(syscall.SIGCONT)
	b.expect("bound <nil>")
	b.tell("kill 9")
	c := w.accept()
	if got := c.ask("passed"); !strings.HasPrefix(got, "passed web@127.0.0.1:") {
		t.Errorf("the next parent gets %q", got)
	}
	c.notify("READY=1")
	c.tell("exit 0")
	w.exit(0)
}

// One that can't come up is tried again, whatever it says: its configuration may get better.
func TestRestartFails(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	a.tell("kill 9")
	for _, how := range []string{"exit 1", "kill 15", "exit 2"} {
		w.accept().tell(how)
	}
	b := w.accept()
	b.notify("READY=1")
	b.tell("exit 1")
	w.exit(1)
}

// A stop while nobody is there ends the service.
func TestStopBeforeRestart(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	left := w.spawn(a, markSuccessor+"3")
	a.tell("kill 9")
	a.gone()
	w.logged("is waited for")
	w.signal(syscall.SIGTERM)
	w.logged("another INT or TERM kills it")
	left.tell("exit 0")
	w.exit(128 + 9)
}

// What an upgrade had started and does not come up is not waited for without end.
func TestSuccessorHangs(t *testing.T) {
	t.Parallel()
	w, a := start(t, envGrace+"=1ms")
	a.notify("READY=1")
	b := w.spawn(a, markSuccessor+"3")
	a.tell("kill 9")
	b.gone()
	w.logged("does not become the parent: killed")
	w.accept().tell("exit 1") // it was never ready: another one
	c := w.accept()
	c.notify("READY=1")
	c.tell("exit 0")
	w.exit(0)
}

// What a dead parent has left has its time, and no more; a program that does not see that
// its parent is gone is asked to drain once the next one serves.
func TestLeftOver(t *testing.T) {
	t.Parallel()
	w, a := start(t, envGrace+"=1ms")
	a.notify("READY=1")
	b := w.spawn(a)
	a.tell("kill 9")
	b.gone()
	w.logged("does not end: killed")
	c := w.accept()
	c.notify("READY=1")
	c.tell("exit 0")
	w.exit(0)
}
