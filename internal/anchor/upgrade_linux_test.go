package anchor

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// copyOfTest is another program than the one that runs.
func copyOfTest(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile(testBinary(t))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "next")
	// Processes that are started meanwhile would hold it open for writing: ETXTBSY.
	syscall.ForkLock.RLock()
	err = os.WriteFile(path, b, 0o755)
	syscall.ForkLock.RUnlock()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// program is the path of what a process executes.
func program(pid int) string {
	path, _ := os.Readlink(exeOf(pid))
	return path
}

// succeed makes a process of that program the parent, and the one before it end.
func (w *world) succeed(a *actor, path string) *actor {
	w.t.Helper()
	b := w.spawn(a, "path="+path)
	b.notify(varFormat + "=" + format)
	a.notify("MAINPID=" + strconv.Itoa(b.pid))
	if program(w.anchor.Pid) == path {
		w.t.Error("the anchor has another program while the parent can still go on")
	}
	a.tell("exit 0")
	a.gone()
	return b
}

// become waits until the anchor executes that program.
func (w *world) become(path string) {
	w.t.Helper()
	if !until(func() bool { return program(w.anchor.Pid) == path }) {
		w.t.Fatalf("the anchor executes %s, not %s", program(w.anchor.Pid), path)
	}
}

// The anchor becomes one of the new program, and nothing else changes.
func TestUpgrade(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	if got := a.ask("bind web"); got != "bound <nil>" {
		t.Fatal(got)
	}
	addr := a.ask("env NOTIFY_SOCKET")
	anchor := strconv.Itoa(w.anchor.Pid)
	before := openFiles(anchor)
	var stored string
	for range 3 {
		path := copyOfTest(t)
		b := w.succeed(a, path)
		w.become(path)
		b.notify("STATUS=the same socket")
		a = b
		w.signal(syscall.SIGHUP)
		a.expect("signal SIGHUP")
		if title, _, _ := strings.Cut(readFile("/proc/"+anchor+"/cmdline"), "\x00"); title != "test: anchor" {
			t.Errorf("its title is %q", title)
		}
		// It has what was kept, and starts a parent that has died, as one of the new program.
		a.tell("kill 9")
		a.gone()
		a = w.accept()
		got := a.ask("passed")
		if stored == "" {
			stored = got
		}
		if got != stored || !strings.HasPrefix(got, "passed web@127") {
			t.Errorf("passed: %q, before: %q", got, stored)
		}
		if got := program(a.pid); got != path {
			t.Errorf("the parent executes %s, not %s", got, path)
		}
		if got := a.ask("env NOTIFY_SOCKET"); got != addr {
			t.Errorf("the notification socket is %s, and was %s", got, addr)
		}
		a.notify("READY=1")
	}
	if after := openFiles(anchor); after > before {
		t.Errorf("%d open files, %d before", after, before)
	}
	w.signal(syscall.SIGTERM)
	for a.next() != "signal SIGTERM" && !t.Failed() {
	}
	a.tell("exit 3")
	w.exit(3)
}

// A stop before it counts after it.
func TestUpgradeWhileStopping(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	w.signal(syscall.SIGTERM)
	a.expect("signal SIGTERM")
	path := copyOfTest(t)
	b := w.succeed(a, path)
	w.become(path)
	b.expect("signal SIGTERM")
	b.tell("kill 9") // nobody takes its place
	w.exit(128 + 9)
}

// What can't be the anchor is not tried, and what can't be executed leaves it as it was.
func TestNoUpgrade(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]func(t *testing.T, w *world, path string, b *actor){
		"it does not say so": nil,
		"another format":     func(_ *testing.T, _ *world, _ string, b *actor) { b.notify(varFormat + "=2 11") },
		"not executable": func(t *testing.T, w *world, path string, b *actor) {
			if err := os.Chmod(path, 0o644); err != nil {
				t.Fatal(err)
			}
			b.notify(varFormat + "=0 1")
			w.logged("goes on with its own program")
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := start(t)
			a.notify("READY=1")
			path := copyOfTest(t)
			b := w.spawn(a, "path="+path)
			a.notify("MAINPID=" + strconv.Itoa(b.pid))
			a.tell("exit 0")
			a.gone()
			if damage != nil {
				damage(t, w, path, b)
			}
			before := openFiles(strconv.Itoa(w.anchor.Pid))
			for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1} {
				w.signal(sig)
				if got, want := b.next(), map[syscall.Signal]string{syscall.SIGHUP: "signal SIGHUP", syscall.SIGUSR1: "signal SIGUSR1"}[sig]; got != want {
					t.Errorf("%q, not %q", got, want)
				}
			}
			b.notify("STATUS=it goes on")
			if got := program(w.anchor.Pid); got == path {
				t.Error("the anchor has become another one")
			}
			if after := openFiles(strconv.Itoa(w.anchor.Pid)); after != before {
				t.Errorf("%d open files, %d before", after, before)
			}
			b.tell("exit 3")
			w.exit(3)
		})
	}
}

// A program of a strange version does what it can with what it is handed: the service goes
// on.
func TestUpgradeStrange(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{"no JSON": "{", "of another time": `{"v":9,"ready":true,"served":true,"unknown":[1]}`} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w, a := start(t, envEncoded+"="+text)
			a.notify("READY=1")
			path := copyOfTest(t)
			b := w.succeed(a, path)
			w.become(path)
			b.notify("READY=1")
			w.signal(syscall.SIGHUP)
			b.expect("signal SIGHUP")
			b.tell("exit 3")
			w.exit(3)
		})
	}
}

// Signals that come all the time do not end it, but for those of which package early says
// so.
func TestUpgradeInStorm(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	a.notify("READY=1")
	path := copyOfTest(t)
	b := w.spawn(a, "path="+path)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for {
			for _, sig := range []syscall.Signal{syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH} {
				_ = w.anchor.Signal(sig)
			}
			select {
			case <-quit:
				return
			default:
			}
		}
	}()
	a.tell("notify MAINPID=%d", b.pid)
	b.tell("notify %s=%s", varFormat, format)
	a.tell("exit 0")
	w.become(path)
	close(quit)
	<-done
	b.tell("notify STATUS=for the new image")
	for n := 0; n < 2 && !t.Failed(); { // the one from before, too
		if b.next() == "notified" {
			n++
		}
	}
	w.signal(syscall.SIGTERM)
	for line := b.next(); line != "signal SIGTERM"; line = b.next() {
		if t.Failed() || line == "" {
			t.Fatal(fmt.Errorf("the stop does not arrive: %q", line))
		}
	}
	b.tell("exit 3")
	w.exit(3)
}
