package upgrader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
)

// Upgrade starts the program's current binary and puts it in this process's
// place. It returns nil once the new process decides: this one has been
// replaced, and should finish what it has and exit.
//
// Otherwise nothing has changed, and the error is one of ErrNotReady,
// ErrInProgress, ErrPredecessorAlive, ErrStopped, ErrUnsupported, the context's
// when it ended before anything began, or a *FailedError with what the new
// program said and how it ended. Config.Timeout begins with the new program;
// ctx bounds all of it, and without workers also the wait for a predecessor that
// still drains.
//
// In a process that has been replaced already, Upgrade asks the successor, by
// SIGHUP, and returns nil.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	err := u.UpgradeTo(ctx, Target{})
	if errors.Is(err, ErrStopped) && u.Relay(syscall.SIGHUP) {
		return nil
	}
	return err
}

// Target is what an upgrade leads to. The zero value is the program's current binary.
type Target struct {
	// Path, if set, is executed as it is, and not looked up. It may be one of /proc. What
	// is upgraded to after that is Config.Path again.
	Path string
	// Name is what people are told instead of a Path.
	Name string
	// Env is added to the new process's environment, NAME=VALUE.
	Env []string
}

// UpgradeTo is Upgrade to another program than the current binary, such as a copy of an
// older one. In a process that has been replaced already it returns ErrStopped: whether
// that is still wanted is not for the successor to know.
func (u *Upgrader) UpgradeTo(ctx context.Context, t Target) error {
	if !launch.Supported {
		return ErrUnsupported
	}
	if err := u.begin(); err != nil {
		return err
	}
	ctx, release := u.alive(ctx)
	defer release()
	err := u.upgrade(ctx, t)
	u.finish(err == nil)
	return err
}

// begin enters phaseUpgrading, or says why not.
func (u *Upgrader) begin() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.phase == phaseReplaced, u.life.Err() != nil:
		return ErrStopped
	case u.phase == phaseUpgrading:
		return ErrInProgress
	case u.phase != phaseReady:
		return ErrNotReady
	}
	u.phase = phaseUpgrading
	for _, s := range u.dropped {
		s.lend(true)
	}
	u.idle = make(chan struct{})
	return nil
}

func (u *Upgrader) finish(replaced bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.phase = phaseReady
	if replaced {
		u.phase = phaseReplaced
		u.successor = u.attempt.proc
		close(u.replaced)
	} else {
		for _, s := range u.dropped {
			s.lend(false)
		}
	}
	u.attempt = nil
	close(u.idle)
}

func (u *Upgrader) upgrade(ctx context.Context, t Target) error {
	if err := u.awaitPredecessor(ctx); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeoutCause(ctx, u.cfg.Timeout, ErrTimeout)
	defer cancel()
	fault.Point(fault.OldBegins)
	a, err := u.newAttempt(t)
	if err != nil {
		return err
	}
	u.attempt = a
	u.begins()
	err = u.run(ctx, a)
	if err != nil {
		u.goesOn()
	}
	return err
}

// awaitPredecessor waits until the process before this one has gone: tableflip
// refuses an upgrade until then.
func (u *Upgrader) awaitPredecessor(ctx context.Context) error {
	// How it ended does not matter any more.
	err := u.tf.WaitForParent(ctx)
	switch cause := context.Cause(ctx); {
	case cause == nil:
		return nil
	case errors.Is(cause, ErrStopped):
		return ErrStopped
	case errors.Is(err, ctx.Err()):
		return fmt.Errorf("%w (%w)", ErrPredecessorAlive, cause)
	default:
		return fmt.Errorf("upgrade not begun: %w", cause)
	}
}

// run carries the attempt to its end. When it returns an error, the new process
// and what it had started is gone, and this one decides.
func (u *Upgrader) run(ctx context.Context, a *attempt) error {
	defer a.close()
	flipped := make(chan error, 1)
	go func() { flipped <- u.flip(ctx, a) }()
	s := succession{u: u, a: a}
	var ready <-chan struct{}
	var stopReading func()
	s.messages, ready, stopReading = a.read()
	s.said = ready
	defer stopReading()
	// A new process that has stopped reading must not stop this one.
	defer context.AfterFunc(ctx, a.stopSending)()

	u.progress("starts " + a.name)
	s.sent(ctx, u.sendSockets(a.conn))
	for {
		select {
		case m, ok := <-s.messages:
			if !ok {
				s.messages = nil // the process's end is told by tableflip
				continue
			}
			s.handle(ctx, m)
		case _, ok := <-ready:
			if !ok {
				ready = nil
				continue
			}
			// What it can't do is to be ready for tableflip and not for us.
			if !s.yielded {
				s.give(ErrForeign)
			}
			if s.cause == nil {
				return s.conclude(flipped)
			}
		case err := <-flipped:
			return s.failed(err)
		case <-s.overdue:
			if s.saysReady() {
				return s.conclude(flipped)
			}
			s.give(s.excuse)
			s.kill()
		case <-ctx.Done():
			if s.saysReady() {
				return s.conclude(flipped)
			}
			s.give(context.Cause(ctx))
			return s.failed(<-flipped)
		}
	}
}

func (u *Upgrader) progress(what string) {
	if u.cfg.Progress != nil {
		u.cfg.Progress(what)
	}
}

// conclude is the end of an upgrade that succeeds: the new process decides and has
// said so. As long as tableflip has not heard of it, this one can still go on
// instead, and does if the new one has died.
func (s *succession) conclude(flipped <-chan error) error {
	<-s.a.started
	fault.Point(fault.OldHeardReady)
	if s.u.names(s.a.proc.Pid) {
		_ = s.a.conn.TrySend(message{Cmd: cmdNamed})
	}
	fault.Point(fault.OldNamedNew)
	// When tableflip hears of both, it may believe either.
	if s.a.proc.Signal(0) == nil {
		s.a.passReady()
	}
	err := <-flipped
	if err == nil {
		s.a.output.finish(0)
		return nil
	}
	s.u.names(os.Getpid())
	return s.failed(err)
}

// refusal is how long tableflip's refusals are taken for a matter of moments.
const refusal = 5 * time.Second

// flip lets tableflip do its part. tableflip refuses, before it starts anything,
// for a moment after this process's own Ready and after its predecessor's end.
func (u *Upgrader) flip(ctx context.Context, a *attempt) error {
	// Whoever waits for the start has to be told that there is none.
	defer func() {
		if !a.spawned {
			close(a.started)
		}
	}()
	for limit := time.Now().Add(refusal); ; {
		err := u.tf.Upgrade()
		if a.spawned || err == nil || ctx.Err() != nil || time.Now().After(limit) {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}
