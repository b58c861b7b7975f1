package anchor

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
)

const envNohup = "ANCHOR_TEST_NOHUP"

// terminalMain is an anchor whose standard input is its controlling terminal.
func terminalMain() {
	if err := unix.IoctlSetInt(0, unix.TIOCSCTTY, 0); err != nil {
		fmt.Fprintln(os.Stderr, "take the terminal:", err)
		os.Exit(96)
	}
	if os.Getenv(envNohup) != "" {
		signal.Ignore(syscall.SIGHUP)
	}
	anchorMain()
}

// startInTerminal starts an anchor as the leader of a session with a terminal,
// whose other side is master.
func startInTerminal(t *testing.T, env ...string) (w *world, a *actor, master *os.File) {
	t.Helper()
	w = newWorld(t)
	master, slave := openPTY(t)
	defer slave.Close()
	w.launch(func(stderr int) (*launch.Process, error) {
		fd, err := launch.Fd(slave)
		if err != nil {
			return nil, err
		}
		self := testBinary(t)
		return launch.Start(launch.Spec{Path: self, Args: []string{self}, Env: w.env("terminal", env...),
			Fds: []int{fd, stderr, stderr}, Setsid: true})
	})
	return w, w.accept(), master
}

// openPTY opens a pseudo terminal (pts(4)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	fd, err := launch.Fd(master)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetUint32(fd, unix.TIOCGPTN)
	if err != nil {
		t.Fatal(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

func typed(t *testing.T, master *os.File, key byte) {
	t.Helper()
	if _, err := master.Write([]byte{key}); err != nil {
		t.Fatal(err)
	}
}

func TestCtrlC(t *testing.T) {
	t.Parallel()
	w, a, master := startInTerminal(t)
	a.notify("READY=1")
	for range 3 {
		typed(t, master, 'C'-'@')
		a.expect("signal SIGINT")
		w.signal(syscall.SIGUSR1) // nothing comes between
		a.expect("signal SIGUSR1")
	}
	// Nobody could continue the leader of a session, so that it does not stop.
	typed(t, master, 'Z'-'@')
	w.signal(syscall.SIGUSR2)
	a.expect("signal SIGUSR2")
	a.tell("exit 0")
	w.exit(0)
}

// A terminal that closes is one stop, however many HUPs that makes.
func TestHangup(t *testing.T) {
	t.Parallel()
	w, a, master := startInTerminal(t)
	a.notify("READY=1")
	w.signal(syscall.SIGHUP)
	a.expect("signal SIGHUP")
	master.Close()
	a.expect("signal SIGTERM")
	w.signal(syscall.SIGHUP) // the shell's
	w.signal(syscall.SIGUSR1)
	a.expect("signal SIGUSR1")
	a.tell("exit 0")
	w.exit(0)
}

// Whoever has asked for a stop and closes the terminal has not asked twice.
func TestHangupWhileStopping(t *testing.T) {
	t.Parallel()
	w, a, master := startInTerminal(t)
	a.notify("READY=1")
	typed(t, master, 'C'-'@')
	a.expect("signal SIGINT")
	master.Close()
	// Not at once: a process that another test has forked can still have it open.
	if !until(func() bool { return stat(w.anchor.Pid, 4) == "0" }) {
		t.Fatal("the terminal does not go")
	}
	w.signal(syscall.SIGHUP)
	w.signal(syscall.SIGUSR1)
	a.expect("signal SIGUSR1")
	a.tell("exit 0")
	w.exit(0)
}

func TestNohup(t *testing.T) {
	t.Parallel()
	w, a, master := startInTerminal(t, envNohup+"=1")
	a.notify("READY=1")
	master.Close()
	w.logged("started with HUP ignored")
	w.signal(syscall.SIGUSR1)
	a.expect("signal SIGUSR1")
	a.tell("exit 0")
	w.exit(0)
}

func TestSuspend(t *testing.T) {
	t.Parallel()
	w, a := start(t)
	stopped := func(pid int) bool { return stat(pid, 0) == "T" }
	for range 2 {
		w.signal(syscall.SIGTSTP)
		if !until(func() bool { return stopped(a.pid) && stopped(w.anchor.Pid) }) {
			t.Fatalf("TSTP does not stop both: parent %t, anchor %t", stopped(a.pid), stopped(w.anchor.Pid))
		}
		w.signal(syscall.SIGCONT)
		if got := a.ask("ping"); got != "pong" {
			t.Errorf("after CONT: %q", got)
		}
	}
	a.tell("exit 0")
	w.exit(0)
}
