package signals

import (
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often a process that has a terminal looks whether it is there.
const interval = 5 * time.Second

// terminal knows whether a HUP is one that the kernel or the shell has sent
// because the controlling terminal closed (credentials(7), tty(4)).
//
// A process can lose its terminal without any HUP, when the shell had disowned
// it. A HUP of the next day is then somebody's wish for an upgrade. So the
// terminal is looked at from time to time, and once it has been gone for an
// interval, no HUP is its any more.
type terminal struct {
	open   func() error // openTerminal
	had    bool         // there was one, and it is not known to be long gone
	gone   bool         // the last look found none
	nohup  bool         // HUP was ignored when the process started
	ticker *time.Ticker
}

func newTerminal(open func() error) terminal {
	t := terminal{open: open, had: open() == nil, nohup: signal.Ignored(syscall.SIGHUP)}
	if t.had {
		t.ticker = time.NewTicker(interval)
	}
	return t
}

// hungUp tells whether a HUP that has just arrived is the terminal's.
func (t *terminal) hungUp() bool { return t.had && terminalGone(t.open()) }

// ticks says when to look.
func (t *terminal) ticks() <-chan time.Time {
	if !t.had {
		return nil
	}
	return t.ticker.C
}

// look is called at ticks. The HUP of a terminal that has gone just now can
// still be on its way: the shell passes it on.
func (t *terminal) look() {
	gone := terminalGone(t.open())
	if gone && t.gone {
		t.had = false
		t.close()
	}
	t.gone = gone
}

func (t *terminal) close() {
	if t.ticker != nil {
		t.ticker.Stop()
	}
}

// terminalGone tells from openTerminal's error, in a process that once had a
// controlling terminal, whether it has none now. Other errors prove nothing: no
// descriptor may be left.
func terminalGone(err error) bool { return err == unix.ENXIO }

// openTerminal opens the controlling terminal and closes it again: a copy that is
// kept would make terminal emulators and sshd wait for this process.
func openTerminal() error {
	for {
		fd, err := unix.Open("/dev/tty", unix.O_RDONLY|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err == unix.EINTR {
			continue
		}
		if err == nil {
			unix.Close(fd)
		}
		return err
	}
}
