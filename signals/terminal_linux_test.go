package signals

import (
	"fmt"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// openPTY opens a pseudo terminal (pts(4)).
func openPTY(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { master.Close() })
	var n uint32
	raw, err := master.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if cerr := raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetUint32(int(fd), unix.TIOCGPTN)
		}
	}); cerr != nil || err != nil {
		t.Fatal(cerr, err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	return master, slave
}

// startInTerminal runs a scenario as the leader of a session with a terminal.
func startInTerminal(t *testing.T, name string, prefix ...string) (*program, *os.File) {
	t.Helper()
	master, slave := openPTY(t)
	p := start(t, name, &syscall.SysProcAttr{Setsid: true, Setctty: true, Ctty: 0}, slave, prefix...)
	slave.Close()
	return p, master
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	p, master := startInTerminal(t, "group")
	p.expect("ready")
	p.kill(syscall.SIGHUP)
	p.expect("upgrade")
	master.Close()
	p.expect("end: signals: stopped by SIGHUP (the terminal has gone), stop true")
	if got := p.status(); got != 0 {
		t.Errorf("status %d", got)
	}
}

// Without a terminal from the start, every HUP is somebody's.
func TestNoTerminal(t *testing.T) {
	t.Parallel()
	p := start(t, "group", &syscall.SysProcAttr{Setsid: true}, nil)
	p.expect("ready")
	p.kill(syscall.SIGHUP)
	p.expect("upgrade")
}

func TestTerminalAndNohup(t *testing.T) {
	t.Parallel()
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Fatal(err)
	}
	p, master := startInTerminal(t, "group", sh, "-c", `trap "" HUP; exec "$0"`)
	p.expect("ready")
	p.kill(syscall.SIGHUP)
	p.expect("upgrade")
	master.Close() // its HUP comes before the TERM
	p.kill(syscall.SIGTERM)
	p.expect("end: signals: stopped by SIGTERM, stop true")
}
