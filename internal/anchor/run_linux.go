package anchor

import (
	"cmp"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/threads"
	"github.com/handover-go/handover/signals"
)

// errStatus: the service has ended, and nobody knows how.
var errStatus = errors.New("the parent has ended, its exit status is not known")

// Run starts the parent from this process's image, with the same arguments, and
// holds it. It returns the exit status of the service: the last parent's, or 128
// and the number of the signal that killed it; 1 and an error when that is not
// known. Nothing else may start or wait for processes here, which Become has executed.
func Run(cfg Config) (int, error) {
	if err := cfg.Validate(); err != nil {
		return 1, err
	}
	cfg.Grace = cmp.Or(cfg.Grace, DefaultGrace)
	cfg.DrainSignal = cmp.Or(cfg.DrainSignal, syscall.SIGTERM)
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if os.Getenv(EnvPid) != "" {
		return 1, fmt.Errorf("an anchor below an anchor (%s is set): this program does not become the parent when it is started as one", EnvPid)
	}
	restore()
	watchdog()
	limitMemory()
	a := &anchor{cfg: cfg, log: cfg.Logger, left: map[int]time.Time{}, ends: make(chan struct{}, 1), nohup: signal.Ignored(syscall.SIGHUP)} // before it is caught
	a.terminal = signals.WatchTerminal()
	defer a.terminal.Close()
	a.signals = catchSignals(signals.StopsOutput())
	defer func() { a.signals.stop() }()
	if err := launch.BecomeSubreaper(); err != nil {
		return 1, err
	}
	threads.Keep(spareThreads)
	if err := a.begins(); err != nil {
		return 1, err
	}
	defer func() { a.inbox.close() }()
	a.catchUp()
	a.loop()
	a.main.Close()
	if a.prev != nil {
		a.prev.Close()
	}
	a.store.close()
	a.watches.Wait()
	return a.result()
}

// anchor is the state of Run's loop.
type anchor struct {
	cfg      Config
	log      *slog.Logger
	nohup    bool // HUP was ignored at the start
	terminal *signals.Terminal
	signals  *signalChannels
	inbox    *inbox

	main *launch.Process // the process that is the service, or was
	prev *launch.Process // the one before it, if any
	// ends gets word when a main that was followed has ended: it may be another's child, and
	// that one may be stopped. Cap 1.
	ends    chan struct{}
	watches sync.WaitGroup
	// givenUp is prev's pid, when it was not waited for any longer.
	givenUp int
	ready   bool             // it can act on signals
	early   []syscall.Signal // what arrived when there was nobody to act on it
	stops   int              // how often a stop was asked for
	asked   syscall.Signal   // the last stop that was sent, 0 for none
	echo    signals.Echo

	dead    bool             // main has ended
	status  launch.Status    // how
	grace   <-chan time.Time // what is left may live until then
	asking  bool             // and was sent SIGTERM
	killing bool             // and is killed from then on
	wish    wish
	lost    bool // main had a successor, which ended before it could be followed

	store   store
	served  bool // some parent has said READY=1
	backoff backoff
	upAt    time.Time         // when main was started, or followed
	diedAt  time.Time         // when it died
	due     <-chan time.Time  // when another one is started
	hold    <-chan time.Time  // when to look again whether that may be
	hang    <-chan time.Time  // when the parent has been silent for another quarter of what it may be; nil: it may be
	hangAt  time.Time         // when that should be
	quiet   int               // quarters before that
	left    map[int]time.Time // of dead parents, and until when they may live
	leftDue <-chan time.Time

	statuses statuses
	strange  bool // somebody else's notifications were told of
	unheard  bool // the supervisor has not taken in what the parent said, just now
	able     int  // who has said that its program can be this anchor's, too
	tried    int  // the parent whose program was tried
}

// leftTime is what processes get to end by themselves that a service leaves behind
// which has stopped in order, and then once more after a SIGTERM.
const leftTime = 2 * time.Second

// spareThreads is how many goroutines of an anchor may wait in system calls when no more
// threads may be started.
const spareThreads = 2

// begins takes over from the image before this one, or else starts the first parent.
func (a *anchor) begins() error {
	if resumed, err := a.resume(); resumed || err != nil {
		if err == nil {
			a.log.Info("the anchor is one of the parent's program", "pid", os.Getpid(), "parent", a.main.Pid)
		}
		return err
	}
	var err error
	if a.inbox, err = newInbox(a.log); err != nil {
		return err
	}
	passed, err := listen.FromSupervisor()
	launch.OwnDescriptors()
	if err == nil {
		err = a.start(passed)
		passed.Close() // what the service closes has to be closed
	}
	if err != nil {
		a.inbox.close()
	}
	return err
}

// start starts a parent with the sockets.
func (a *anchor) start(passed listen.Passed) error {
	env := append(os.Environ(), a.cfg.Env...)
	env = append(env, sdnotify.Env+"="+a.inbox.Addr(), fmt.Sprintf("%s=%d", EnvPid, os.Getpid()), fmt.Sprintf("%s=%d", sdnotify.EnvStore, maxStored))
	if a.cfg.HungAfter > 0 {
		env = append(env, fmt.Sprintf("%s=%d", EnvHung, a.cfg.HungAfter.Milliseconds()))
	}
	fds := []int{0, 1, 2}
	if len(passed) > 0 {
		env = append(env, passed.Env()...)
		for _, d := range passed {
			fds = append(fds, d.Fd)
		}
	}
	args, env := launch.Titled(a.cfg.Title, env)
	p, err := launch.Start(launch.Spec{Path: launch.Self, Args: args, Env: env, Fds: fds, Setpgid: true})
	if err != nil {
		return err
	}
	a.main, a.upAt = p, time.Now()
	return nil
}

// loop goes on until the service has ended.
func (a *anchor) loop() {
	idle := time.NewTimer(idleTime)
	defer idle.Stop()
	// rested: nothing has happened since memory was given back, so that there is nothing to
	// look at. A system call would be slow now, for which the runtime would start a thread,
	// and that brings back a megabyte.
	rested := false
	for rested || !a.look() {
		if !rested && a.outdated() {
			a.upgrade()
		}
		rested, a.unheard = false, false
		select {
		case sig := <-a.signals.stops:
			a.look() // is there anybody to ask?
			a.stop(sig.(syscall.Signal))
		case sig := <-a.signals.others:
			a.other(sig.(syscall.Signal))
		case n := <-a.inbox.notes:
			// First what happened before it was said: a successor speaks up
			// when the parent dies.
			if n.Pid != a.main.Pid {
				a.look()
			}
			a.take(&n)
			n.Done()
		case <-a.signals.chld:
		case <-a.ends:
		case <-a.terminal.Ticks():
			a.terminal.Look()
		case <-a.grace:
			a.graceEnded()
		case <-a.due:
			a.due = nil
			a.restart()
		case <-a.hold:
			a.hold = nil // look looks
		case <-a.leftDue:
			a.clearLeft()
		case <-a.wish.due:
			a.look() // this process may be late
			a.refuse()
		case <-a.hang:
			a.hung()
		case <-idle.C:
			giveBack()
			rested = true
			continue
		}
		idle.Reset(idleTime)
	}
}

// result is the exit status of the service.
func (a *anchor) result() (int, error) {
	switch {
	case !a.status.Known || a.status.Success() && a.lost:
		return 1, errStatus
	case a.status.Signal != 0:
		return 128 + a.status.Signal, nil
	}
	return a.status.Code, nil
}
