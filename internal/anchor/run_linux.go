package anchor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/signals"
)

// errStatus: the service has ended, and nobody knows how.
var errStatus = errors.New("the parent has ended, its exit status is not known")

// Run starts the parent from this process's image, with the same arguments, and
// holds it. It returns the exit status of the service: the last parent's, or 128
// and the number of the signal that killed it; 1 and an error when that is not
// known. Nothing else may start or wait for processes here.
func Run(cfg Config) (int, error) {
	if err := cfg.Validate(); err != nil {
		return 1, err
	}
	if cfg.Grace == 0 {
		cfg.Grace = DefaultGrace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if os.Getenv(EnvPid) != "" {
		return 1, fmt.Errorf("an anchor below an anchor (%s is set): this program does not become the parent when it is started as one", EnvPid)
	}

	passed, err := listen.FromSupervisor()
	if err != nil {
		return 1, err
	}
	defer passed.Close()

	nohup := signal.Ignored(syscall.SIGHUP) // before it is caught
	terminal := signals.WatchTerminal()
	defer terminal.Close()
	// Of each signal the kernel keeps one until it is read. The stops have a
	// channel of their own, so that a storm of others can't displace them.
	stops, others, chld := make(chan os.Signal, 4), make(chan os.Signal, 16), make(chan os.Signal, 1)
	signal.Notify(stops, syscall.SIGINT, syscall.SIGTERM)
	defer signal.Stop(stops)
	// Nobody here reads the terminal, so that every TTIN is a person's.
	signal.Notify(others, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH, syscall.SIGTSTP, syscall.SIGTTIN)
	if !signals.StopsOutput() {
		signal.Notify(others, syscall.SIGTTOU)
	}
	defer signal.Stop(others)
	signal.Notify(chld, syscall.SIGCHLD)
	defer signal.Stop(chld)
	// Nobody reads this one: it keeps a log whose reader has gone from ending the
	// anchor (os/signal). To ignore the signal would be inherited.
	pipe := make(chan os.Signal, 1)
	signal.Notify(pipe, syscall.SIGPIPE)
	defer signal.Stop(pipe)

	if err := launch.BecomeSubreaper(); err != nil {
		return 1, err
	}
	inbox, err := newInbox(cfg.Logger)
	if err != nil {
		return 1, err
	}
	defer inbox.close()

	env := append(os.Environ(), cfg.Env...)
	env = append(env, sdnotify.Env+"="+inbox.Addr(), fmt.Sprintf("%s=%d", EnvPid, os.Getpid()))
	fds := []int{0, 1, 2}
	if len(passed) > 0 {
		env = append(env, passed.Env()...)
		for _, d := range passed {
			fds = append(fds, d.Fd)
		}
	}
	args, env := launch.Titled(cfg.Title, env)
	p, err := launch.Start(launch.Spec{Path: launch.Self, Args: args, Env: env, Fds: fds, Setpgid: true})
	if err != nil {
		return 1, err
	}
	// What the service closes has to be closed.
	passed.Close()

	a := &anchor{log: cfg.Logger, graceTime: cfg.Grace, main: p}
	defer func() { a.main.Close() }()
	for !a.look() {
		select {
		case sig := <-stops:
			a.look() // is there anybody to ask?
			a.stop(sig.(syscall.Signal))
		case sig := <-others:
			switch {
			case sig == syscall.SIGHUP && terminal.HungUp():
				a.hangup(nohup)
			case sig == syscall.SIGTSTP:
				a.suspend()
			default:
				a.signal(sig.(syscall.Signal))
			}
		case n := <-inbox.notes:
			// First what happened before it was said: a successor speaks up
			// when the parent dies.
			a.look()
			a.take(n)
			n.Done()
		case <-chld:
		case <-terminal.Ticks():
			terminal.Look()
		case <-a.grace:
			a.graceEnded()
		}
	}
	if !a.status.Known || a.status.Success() && a.lost {
		return 1, errStatus
	}
	if a.status.Signal != 0 {
		return 128 + a.status.Signal, nil
	}
	return a.status.Code, nil
}

// anchor is the state of Run's loop.
type anchor struct {
	log       *slog.Logger
	graceTime time.Duration

	main  *launch.Process  // the process that is the service, or was
	ready bool             // it can act on signals
	early []syscall.Signal // what arrived when there was nobody to act on it
	stops int              // how often a stop was asked for
	asked syscall.Signal   // the last stop that was sent, 0 for none
	echo  signals.Echo

	dead    bool             // main has ended
	status  launch.Status    // how
	grace   <-chan time.Time // what is left may live until then
	asking  bool             // and was sent SIGTERM
	killing bool             // and is killed from then on
	wish    wish
	lost    bool // main had a successor, which ended before it could be followed
}

// wish is a process's claim to be the service, made when the parent lived.
type wish struct {
	pid   int
	until time.Time
}

// leftTime is what processes get to end by themselves that a service leaves behind
// which has stopped in order, and then once more after a SIGTERM.
const leftTime = 2 * time.Second

// wishTime is how long a wish is good for: a process that dies closes its files,
// by which its successor knows of its death, some time before the anchor is told.
const wishTime = time.Second

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

// graceEnded ends what has been left behind: after an orderly stop it is asked first.
func (a *anchor) graceEnded() {
	if !a.status.Success() || a.asking {
		a.kill()
		return
	}
	pids := launch.Children()
	a.log.Warn("the service has stopped, but has left processes behind: they are ended", "pids", pids)
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGTERM)
	}
	a.asking, a.grace = true, time.After(leftTime)
}

// kill ends what is left of the service.
func (a *anchor) kill() {
	pids := launch.Children()
	if !a.killing && len(pids) > 0 {
		a.log.Error("killing what is left of the service", "pids", pids)
	}
	a.killing, a.grace = true, nil
	for _, pid := range pids {
		_ = syscall.Kill(pid, syscall.SIGKILL) // a child that only this goroutine reaps
	}
}

// take follows what the parent says. As with systemd's NotifyAccess=main, only
// the parent may name another; when it is dead, a process that it left may name
// itself: the successor that it was bringing up, or the predecessor that goes on.
func (a *anchor) take(n note) {
	switch {
	case n.mainPid == 0:
	case n.mainPid == a.main.Pid:
		if n.Pid == a.main.Pid {
			a.lost = false // it goes on without the successor
		}
	case n.Pid == a.main.Pid && !a.dead, n.Pid == n.mainPid && a.dead:
		// The parent may name one that has just died, the last to be heard of.
		if err := a.follow(n.mainPid); err != nil {
			a.log.Error("the new main process can't be followed", "error", err)
			a.lost = errors.Is(err, os.ErrProcessDone)
		}
	case n.Pid == n.mainPid && descendant(n.Pid):
		a.wish = wish{n.Pid, time.Now().Add(wishTime)}
	default:
		a.log.Warn("MAINPID from a process that is not the parent: ignored", "from", n.Pid, "pid", n.mainPid)
	}
	if n.Says("READY", "1") && n.Pid == a.main.Pid && !a.dead {
		a.begin()
		_ = sdnotify.Send("READY=1") // to whoever has started a container that is this process
	}
}

// begin hands over what has waited for a parent that is ready.
func (a *anchor) begin() {
	a.ready = true
	early := a.early
	a.early = nil
	for _, sig := range early {
		a.send(sig)
	}
}

// follow makes a descendant the main process.
func (a *anchor) follow(pid int) error {
	p, err := launch.Follow(pid)
	if err != nil {
		return err
	}
	// The descriptor came first: if the pid is a descendant's now, and the
	// descriptor's process was not reaped, they are one.
	if !descendant(pid) {
		p.Close()
		return fmt.Errorf("process %d is not one of this service", pid)
	}
	a.main.Close()
	a.main, a.dead, a.grace, a.asking, a.lost = p, false, nil, false, false
	// Whoever hands over, or dies, has not stopped the service: only now is it
	// certain that a stop which was sent before was of no use.
	if a.asked != 0 {
		a.keep(a.asked)
	}
	if a.ready {
		a.begin()
	}
	return nil
}

// look takes in what has ended, and reports whether the service has.
func (a *anchor) look() (over bool) {
	ended := a.ended()
	left := a.reap()
	if !a.dead && (!left || ended && !slices.Contains(launch.Children(), a.main.Pid)) {
		// It was not this process's child: the older parent that had started it
		// has reaped it, or is going to.
		status := launch.Status{Code: -1}
		if a.ended() {
			status = a.main.Wait()
		}
		a.died(status)
	}
	if !left {
		return a.dead
	}
	switch {
	case a.killing:
		a.kill() // what was killed has left others
	case a.dead && a.grace == nil && a.status.Success():
		// The service has ended in order. What is left is none of its workers; it may
		// be a parent that was replaced and is about to end.
		a.grace = time.After(leftTime)
	case a.dead && a.grace == nil:
		a.log.Error("the parent is gone, what it left drains", "pid", a.main.Pid, "status", a.status.String(), "grace", a.graceTime)
		a.grace = time.After(a.graceTime)
	}
	return false
}

// ended reports whether main has ended, no matter whose child it is.
func (a *anchor) ended() bool { return errors.Is(a.main.Signal(0), os.ErrProcessDone) }

// reap takes in every child that has ended and reports whether some are left.
func (a *anchor) reap() (left bool) {
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
			continue
		case err != nil: // ECHILD
			return false
		case pid == 0:
			return true
		case pid == a.main.Pid:
			a.died(launch.StatusOf(ws))
		}
	}
}

// died is called when main has ended, and once more if its status comes later. A
// successor may have spoken up already.
func (a *anchor) died(status launch.Status) {
	a.status = status
	if a.dead {
		return
	}
	a.dead = true
	wish := a.wish
	a.wish.pid = 0
	if wish.pid != 0 && time.Now().Before(wish.until) && alive(wish.pid) && a.follow(wish.pid) == nil {
		a.log.Warn("the parent is gone, its successor takes over", "status", status.String(), "pid", a.main.Pid)
		a.begin()
	}
}

// alive reports whether there is such a process, and it has not ended.
func alive(pid int) bool {
	p, err := launch.Follow(pid)
	if err != nil {
		return false
	}
	defer p.Close()
	return p.Signal(0) == nil
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
