package signals

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"os"
	"os/signal"
	"slices"
	"syscall"
	"time"
)

// backlog is how many signals can wait while the actor's goroutine is not
// scheduled. It never works, it only decides, so that few are enough.
const backlog = 64

// Actor returns the two functions that run.Group.Add wants.
//
// The signals of m are caught when Actor returns, before execute runs: a stop
// that arrives in between ends execute as soon as it is called, and actions wait
// until then. If m is not valid, nothing is caught, and execute returns
// [Map.Validate]'s error.
//
// execute returns a [*StopError] after a stop signal, nil after interrupt, and
// the context's cause after ctx is done. interrupt never blocks. Both may be
// called from any goroutine. The contexts of the actions are derived from ctx.
//
// SIGPIPE is caught with them, and means nothing: a log whose reader has gone, such as
// journald while it is restarted, must not end the process (os/signal, "SIGPIPE").
//
// The signals stay caught after execute has returned (see the package's
// documentation), until ctx is done. Then the goroutine that Actor started ends,
// too. A process that ends after its group needs to do nothing.
func Actor(ctx context.Context, m Map, opts ...Option) (execute func() error, interrupt func(error)) {
	if err := m.Validate(); err != nil {
		return func() error { return err }, func(error) {}
	}
	a := newActor(m, opts...)
	a.marker = marker
	for sig := range m { // Notify without any signal would catch all
		signal.Notify(a.signals, sig)
	}
	signal.Notify(a.pipe, syscall.SIGPIPE)
	go a.watch(ctx)
	return a.run, func(error) { poke(a.interrupt) }
}

// actor is what Actor returns the methods of. Its channels can be used by
// anybody. All other fields belong to the goroutine that runs watch, except
// outcome, which can be read once ended is closed.
type actor struct {
	actions Map
	log     *slog.Logger
	atOnce  func(os.Signal)
	late    func(os.Signal)
	marker  syscall.Signal // 0: no flush

	signals   chan os.Signal
	pipe      chan os.Signal // nobody reads it
	execute   chan struct{}
	interrupt chan struct{}
	finished  chan error // what the running action returned

	ended   chan struct{} // closed when execute may return
	outcome error

	terminal *Terminal
	echo     Echo
	started  bool        // execute has been called
	stopping bool        // no action starts any more
	told     bool        // a stop signal has arrived
	flushed  bool        // flush was called
	waiting  []os.Signal // whose actions run when the present one has ended
	running  os.Signal   // whose action runs, or nil
}

func newActor(m Map, opts ...Option) *actor {
	a := &actor{
		actions:   maps.Clone(m),
		log:       slog.Default(),
		atOnce:    exit,
		signals:   make(chan os.Signal, backlog),
		pipe:      make(chan os.Signal, 1),
		execute:   make(chan struct{}, 1),
		interrupt: make(chan struct{}, 1),
		finished:  make(chan error, 1),
		ended:     make(chan struct{}),
		terminal:  newTerminal(openTerminal),
	}
	for _, opt := range opts {
		opt(a)
	}
	return a
}

// run is execute.
func (a *actor) run() error {
	poke(a.execute)
	<-a.ended
	return a.outcome
}

// watch is the actor's goroutine. It ends when ctx is done and no action runs.
func (a *actor) watch(ctx context.Context) {
	defer a.terminal.Close()
	work, cancel := context.WithCancel(ctx)
	defer cancel()
	done, released := ctx.Done(), false // done is nil for context.Background
	for {
		if a.stopping {
			cancel()
			for _, sig := range a.waiting {
				a.tooLate(sig)
			}
			a.waiting = nil
		}
		if a.running == nil {
			switch {
			case released:
				signal.Stop(a.signals)
				signal.Stop(a.pipe)
				a.end()
				return
			case a.stopping:
				a.flush()
				a.end()
			case a.started && len(a.waiting) > 0:
				a.running, a.waiting = a.waiting[0], a.waiting[1:]
				go func(action Action) { a.finished <- action(work) }(a.actions[a.running])
			}
		}
		select {
		case sig := <-a.signals:
			select {
			case <-a.interrupt: // came first, or at the same time
				a.stop(nil)
			default:
			}
			a.signalled(sig)
		case <-a.execute:
			a.started = true
		case <-a.interrupt:
			a.stop(nil)
		case err := <-a.finished:
			a.returned(err)
		case <-a.terminal.Ticks():
			a.terminal.Look()
		case <-done:
			done, released = nil, true
			a.stop(context.Cause(ctx))
		}
	}
}

// signalled decides what a signal means now.
func (a *actor) signalled(sig os.Signal) {
	closed := sig == syscall.SIGHUP && a.terminal.HungUp()
	asked := sig == syscall.SIGINT || sig == syscall.SIGTERM
	switch {
	case asked && a.echo.Is(sig):
	case closed && a.terminal.nohup:
		a.log.Info("the terminal has gone: ignored, as the process was started with HUP ignored")
	case a.stopping && !asked:
		a.tooLate(sig)
	case a.stopping && a.told:
		a.last(func() { a.log.Warn("second stop signal: stopping at once", "signal", name(sig)) })
		a.atOnce(sig)
	case a.stopping:
		a.told = true
		if a.late != nil {
			a.late(sig)
		}
		a.log.Info("stop signal: the process is about to end, another INT or TERM ends it at once", "signal", name(sig))
	case closed, isStop(a.actions[sig]):
		a.told = true
		a.stop(&StopError{Signal: sig, Terminal: closed})
	case slices.Contains(a.waiting, sig):
		// Its action has not begun: the run that waits is this signal's, too.
	default:
		a.waiting = append(a.waiting, sig)
	}
}

// last says why the process ends, unless nobody reads it (Ctrl-S): that must not keep
// it from ending.
func (a *actor) last(say func()) {
	said := make(chan struct{})
	go func() { say(); close(said) }()
	select {
	case <-said:
	case <-time.After(time.Second):
	}
}

// tooLate is for signals other than stops whose action will not run any more.
func (a *actor) tooLate(sig os.Signal) {
	if a.late != nil && !a.told {
		a.late(sig)
		return
	}
	a.log.Info("signal ignored: the process is about to end", "signal", name(sig))
}

// returned takes note of an action's end.
func (a *actor) returned(err error) {
	sig := a.running
	a.running = nil
	switch {
	case err == nil:
	case errors.Is(err, ErrStop):
		a.told = true
		a.stop(&StopError{Signal: sig})
	case a.stopping:
		a.log.Info("the stop ended a signal's action early", "signal", name(sig), "err", err)
	default:
		a.log.Error("a signal's action failed", "signal", name(sig), "err", err)
	}
}

// stop makes the actor end. The first outcome stays.
func (a *actor) stop(outcome error) {
	if a.stopping {
		return
	}
	a.stopping, a.outcome = true, outcome
	// From here on INT and TERM are ours, unless the process was told to ignore
	// them, as a shell's background jobs are.
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM} {
		if a.actions[sig] == nil && !signal.Ignored(sig) {
			signal.Notify(a.signals, sig)
		}
	}
}

// flushTime bounds each of flush's two waits. The kernel needs microseconds.
const flushTime = time.Second

// flush takes in the signals that were sent to this process before the call and
// are still between the kernel and the actor, if somebody wants the late ones. A
// process that has named its successor is sent no more from then on, and exits
// soon: without this, what was sent a moment earlier would be lost with it.
//
// It sends a signal to this process and waits for that. What has arrived before is
// handed on by package os/signal first (lower numbers before higher ones).
func (a *actor) flush() {
	if a.late == nil || a.told || a.flushed || a.marker == 0 {
		return
	}
	a.flushed = true
	settled(time.Now().Add(flushTime))
	signal.Notify(a.signals, a.marker)
	if syscall.Kill(os.Getpid(), a.marker) != nil {
		return
	}
	timer := time.NewTimer(flushTime)
	defer timer.Stop()
	for {
		select {
		case sig := <-a.signals:
			if sig == a.marker {
				return
			}
			a.signalled(sig)
		case <-timer.C:
			return
		}
	}
}

// end lets execute return.
func (a *actor) end() {
	select {
	case <-a.ended:
	default:
		close(a.ended)
	}
}

// poke leaves a note in a channel with room for one.
func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
