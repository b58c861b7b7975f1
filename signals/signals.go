// Package signals turns operating system signals into actions, as an actor for
// a run.Group of github.com/oklog/run:
//
//	g.Add(signals.Actor(ctx, signals.Map{
//		syscall.SIGHUP:  up.Upgrade,
//		syscall.SIGUSR2: up.Upgrade,
//		syscall.SIGTERM: signals.Stop,
//		syscall.SIGINT:  signals.Stop,
//	}))
//
// # What a signal does
//
// A signal that is mapped to [Stop] ends the actor, and with it the group, at
// once: execute returns a [*StopError]. Any other mapped signal runs its action.
// Actions run one at a time, in the order of their signals. A signal that
// arrives while its action runs leads to one more run, however often it arrives
// (each signal counts by itself, even where two have one action). An action that
// fails is logged, and the actor goes on.
//
// A stop cancels the context of the action that is running, and drops those
// that wait. It is not delayed by an action, except that execute returns only
// when the action has returned.
//
// # The second stop signal
//
// The first stop is graceful, so it can take long. From then on INT and TERM,
// mapped or not, mean "at once": see [AtOnce]. The same signal within 100 ms is no
// second one, but the first again (see [Echo]). When the actor ended for another
// reason (an upgrade has succeeded, a neighbour in the group has failed), what
// is left of the process drains. It must not be killed by a late HUP, so mapped
// signals stay caught; the first INT or TERM is logged, and the next is "at once".
// This holds until the context that was given to [Actor] is done: then all
// signals are what they were before.
//
// # HUP
//
// The kernel sends HUP as well when a terminal closes. That HUP is a stop,
// whatever it is mapped to. Go does not show who sent a signal, so the actor
// looks at the terminal: it had one, and has none now. A process that was
// started with HUP ignored (nohup(1)) ignores the terminal's HUP.
//
// QUIT is better left out of the map: Go answers it with a dump of all goroutines.
package signals

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"reflect"
	"syscall"

	"golang.org/x/sys/unix"
)

// An Action is what a signal leads to. Its context ends when the actor is told
// to stop. Its error is logged, unless it is [ErrStop], which ends the actor.
type Action func(context.Context) error

// A Map says which signal leads to which action.
type Map map[os.Signal]Action

// ErrStop is what execute's error is, in the sense of [errors.Is], after a stop
// signal. An action that returns it (wrapped or not) ends the actor like [Stop],
// but only when its turn comes.
var ErrStop = errors.New("signals: stop")

// Stop is the action of signals that ask for a graceful stop. It is not run: the
// actor knows it, and ends without waiting for its turn.
func Stop(context.Context) error { return ErrStop }

// StopError is what execute returns after a stop signal: it tells main that it
// may exit with status 0. It matches [ErrStop].
type StopError struct {
	// Signal is the signal that asked for the stop.
	Signal os.Signal
	// Terminal tells that the signal was sent because the terminal has gone.
	Terminal bool
}

// Error names the signal.
func (e *StopError) Error() string {
	why := ""
	if e.Terminal {
		why = " (the terminal has gone)"
	}
	return fmt.Sprintf("signals: stopped by %s%s", name(e.Signal), why)
}

// Is tells that e is [ErrStop].
func (e *StopError) Is(target error) bool { return target == ErrStop }

// ErrMap is wrapped by every error of [Map.Validate].
var ErrMap = errors.New("signals: bad map")

// Validate reports, wrapping [ErrMap], signals without an action and signals
// that no process can catch.
func (m Map) Validate() error {
	for sig, action := range m {
		switch {
		case sig == nil:
			return fmt.Errorf("%w: an entry has no signal", ErrMap)
		case sig == syscall.SIGKILL || sig == syscall.SIGSTOP:
			return fmt.Errorf("%w: %s can't be caught: remove it", ErrMap, name(sig))
		case action == nil:
			return fmt.Errorf("%w: %s has no action: give it one or remove it", ErrMap, name(sig))
		}
	}
	return nil
}

// An Option changes what [Actor] does.
type Option func(*actor)

// AtOnce sets what a second INT or TERM does: f is called with the signal, in a
// goroutine of the actor's. The default is to exit with status 128 + the
// signal's number (130 for INT, 143 for TERM), as a shell reports it.
func AtOnce(f func(os.Signal)) Option {
	return func(a *actor) { a.atOnce = f }
}

// Late sets what happens to signals that arrive, or wait, when the actor has
// been interrupted without a stop signal, so that nothing acts on them any more:
// f is called with each, in the actor's goroutine. A process that has been replaced
// by an upgrade passes them on to its successor, for whom they are meant. The
// default is to log them.
func Late(f func(os.Signal)) Option {
	return func(a *actor) { a.late = f }
}

// Logger sets where failed actions and ignored signals are logged.
// The default, and nil, is [slog.Default].
func Logger(l *slog.Logger) Option {
	return func(a *actor) { a.log = cmp.Or(l, slog.Default()) }
}

// isStop tells whether an action is Stop itself. Only the address of the code can
// be compared. Should that ever miss, Stop is run in its turn and still stops.
func isStop(a Action) bool {
	return reflect.ValueOf(a).Pointer() == reflect.ValueOf(Stop).Pointer()
}

// exit is the default of AtOnce.
func exit(sig os.Signal) {
	code := 1
	if s, ok := sig.(syscall.Signal); ok {
		code = 128 + int(s)
	}
	os.Exit(code)
}

// name gives signals the names that people type, such as SIGHUP.
func name(sig os.Signal) string {
	if s, ok := sig.(syscall.Signal); ok && unix.SignalName(s) != "" {
		return unix.SignalName(s)
	}
	return sig.String()
}
