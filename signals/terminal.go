package signals

import (
	"os/signal"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// interval is how often a process that has a terminal looks whether it is there.
const interval = 5 * time.Second

// Terminal knows whether a HUP is one that the kernel or the shell has sent
// because the controlling terminal closed (credentials(7), tty(4)).
//
// A process can lose its terminal without any HUP, when the shell had disowned
// it. A HUP of the next day is then somebody's wish for an upgrade. So the
// terminal is looked at from time to time, and once it has been gone for an
// interval, no HUP is its any more.
type Terminal struct {
	open   func() error // openTerminal
	had    bool         // there was one, and it is not known to be long gone
	gone   bool         // the last look found none
	nohup  bool         // HUP was ignored when the process started
	ticker *time.Ticker
}

// WatchTerminal begins to watch the controlling terminal, for a process that acts
// on HUP without an Actor. Its owner calls Look at every tick, and Close at the
// end. It is for one goroutine.
func WatchTerminal() *Terminal { return newTerminal(openTerminal) }

func newTerminal(open func() error) *Terminal {
	t := &Terminal{open: open, had: open() == nil, nohup: signal.Ignored(syscall.SIGHUP)}
	if t.had {
		t.ticker = time.NewTicker(interval)
	}
	return t
}

// HungUp tells whether a HUP that has just arrived is the terminal's.
func (t *Terminal) HungUp() bool { return t.had && terminalGone(t.open()) }

// Ticks says when to look. It is nil when there is no terminal.
func (t *Terminal) Ticks() <-chan time.Time {
	if !t.had {
		return nil
	}
	return t.ticker.C
}

// Look is to be called at Ticks. The HUP of a terminal that has gone just now can
// still be on its way: the shell passes it on.
func (t *Terminal) Look() {
	gone := terminalGone(t.open())
	if gone && t.gone {
		t.had = false
		t.Close()
	}
	t.gone = gone
}

// Close ends the ticks.
func (t *Terminal) Close() {
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
