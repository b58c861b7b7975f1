package anchor

import (
	"errors"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// signalChannels are the signals that the anchor acts on. Of each the kernel keeps one
// until it is read.
type signalChannels struct {
	// The stops have a channel of their own, so that a storm of others can't displace
	// them.
	stops, others chan os.Signal
	chld          chan os.Signal
	// Nobody reads this one: it keeps a log whose reader has gone from ending the
	// anchor (os/signal). To ignore the signal would be inherited.
	pipe   chan os.Signal
	caught []os.Signal
}

// catchSignals catches them. Where the terminal stops output from the background, TTOU is
// not caught.
func catchSignals(tostop bool) *signalChannels {
	c := &signalChannels{
		stops: make(chan os.Signal, 4), others: make(chan os.Signal, 16),
		chld: make(chan os.Signal, 1), pipe: make(chan os.Signal, 1),
	}
	stops := []os.Signal{syscall.SIGINT, syscall.SIGTERM}
	// Nobody here reads the terminal, so that every TTIN is a person's.
	others := []os.Signal{syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGTTIN}
	if !tostop {
		others = append(others, syscall.SIGTTOU)
	}
	c.caught = append(stops, others...)
	signal.Notify(c.stops, stops...)
	signal.Notify(c.others, others...)
	signal.Notify(c.chld, syscall.SIGCHLD)
	signal.Notify(c.pipe, syscall.SIGPIPE)
	return c
}

// drain has the anchor act on those that have arrived.
func (c *signalChannels) drain(a *anchor) {
	for {
		select {
		case sig := <-c.stops:
			a.stop(sig.(syscall.Signal))
		case sig := <-c.others:
			a.other(sig.(syscall.Signal))
		default:
			return
		}
	}
}

func (c *signalChannels) stop() {
	for _, ch := range []chan os.Signal{c.stops, c.others, c.chld, c.pipe} {
		signal.Stop(ch)
	}
}

// other acts on a signal that is no stop.
func (a *anchor) other(sig syscall.Signal) {
	switch {
	case sig == syscall.SIGHUP && a.terminal.HungUp():
		a.hangup(a.nohup)
	case sig == syscall.SIGTSTP:
		a.suspend()
	default:
		a.signal(sig)
	}
}

// stop acts on INT and TERM. Without a parent the second one ends what is left.
func (a *anchor) stop(sig syscall.Signal) {
	echo := a.echo.Is(sig)
	if !echo {
		a.stops++
	}
	switch {
	case !a.dead: // who can tell an echo, too
		a.asked = sig
		a.send(sig)
	case echo:
	case a.stops > 1:
		a.log.Warn("second stop signal: stopping at once", "signal", sig.String())
		a.kill()
	default:
		a.log.Info("the parent is gone: what it left drains, another INT or TERM kills it", "signal", sig.String())
		a.keep(sig)
	}
}

// hangup acts on the HUP of a terminal that has closed. More than one may arrive,
// from the kernel and from the shell, and two TERMs would mean "at once".
func (a *anchor) hangup(nohup bool) {
	switch {
	case nohup:
		a.log.Info("the terminal has gone: ignored, as the process was started with HUP ignored")
	case a.stops == 0:
		a.stop(syscall.SIGTERM)
	}
}

// signal acts on the others.
func (a *anchor) signal(sig syscall.Signal) {
	if !a.ready && sig != syscall.SIGQUIT { // which asks a start that hangs
		a.keep(sig)
		return
	}
	a.send(sig)
}

// keep remembers a signal for a parent that is ready.
func (a *anchor) keep(sig syscall.Signal) {
	if !slices.Contains(a.early, sig) {
		a.early = append(a.early, sig)
	}
}

// send passes a signal on, if need be to the next parent.
func (a *anchor) send(sig syscall.Signal) {
	switch err := a.main.Signal(sig); {
	case errors.Is(err, os.ErrProcessDone):
		a.keep(sig)
	case err != nil:
		a.log.Error("signal not forwarded", "signal", sig.String(), "pid", a.main.Pid, "error", err)
	}
}

// suspend does what Ctrl-Z asks for. The anchor comes to a stop after the parent,
// and goes on first. A shell must be there to continue it: in a process group
// that is nobody's job the kernel does not let TSTP stop anything either
// (setpgid(2), orphaned process groups).
func (a *anchor) suspend() {
	parent := os.Getppid()
	sid, err := unix.Getsid(parent)
	own, _ := unix.Getsid(0)
	group, _ := unix.Getpgid(parent)
	if err != nil || sid != own || group == unix.Getpgrp() {
		return
	}
	// Not by TSTP: Go does not give it back its default action once it has been
	// caught. Sent to the thread itself, the signal stops it before the call
	// returns.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	_ = a.main.Signal(syscall.SIGTSTP)
	_ = unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
	_ = a.main.Signal(syscall.SIGCONT)
}
