package upgrader

import (
	"context"
	"errors"
	"os"
	"syscall"

	"github.com/handover-go/handover/internal/fault"
)

// Ready says that this process could serve. In the first generation that makes
// it the one that decides, at once. In a later one it waits for the
// predecessor's commit and returns its legacy, unless Config.Take got it; if the
// predecessor dies first, this process decides with an empty legacy. The PID file
// is written then, and the supervisor told. What was passed in LISTEN_FDS and not
// opened is closed, with a warning.
//
// If ctx ends first, Stop is called, or the predecessor's commit does not arrive
// whole, nothing has changed for the predecessor: it is told that this process
// gives up. Ready can be called once.
func (u *Upgrader) Ready(ctx context.Context) (Legacy, error) {
	u.readying.Lock()
	defer u.readying.Unlock()
	if err := u.mayBeReady(); err != nil {
		return Legacy{}, err
	}
	legacy, err := u.succeed(ctx)
	orphan := errors.Is(err, errOrphaned)
	if err != nil && !orphan {
		u.Fail(err)
		u.setPhase(phaseFailed)
		return Legacy{}, err
	}
	fault.Point(fault.NewGotCommit)
	return u.decide(legacy, orphan), nil
}

func (u *Upgrader) mayBeReady() error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch {
	case u.life.Err() != nil:
		return ErrStopped
	case u.phase != phaseStarting:
		return errors.New("upgrader: Ready was called before: it can be called once")
	}
	return nil
}

func (u *Upgrader) setPhase(p phase) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.phase = p
}

// succeed waits for the commit.
func (u *Upgrader) succeed(ctx context.Context) (Legacy, error) {
	// What can be found wrong is, before anything has changed.
	if err := u.pidFile.ready(); err != nil {
		return Legacy{}, err
	}
	if u.pred == nil {
		return Legacy{}, nil
	}
	ctx, release := u.alive(ctx)
	defer release()
	return u.pred.awaitCommit(ctx)
}

// alive derives a context that ends with Stop, too.
func (u *Upgrader) alive(ctx context.Context) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	stop := context.AfterFunc(u.life, func() { cancel(context.Cause(u.life)) })
	return ctx, func() { stop(); cancel(nil) }
}

// decide makes this process the one that decides, and returns what nobody has taken
// of the legacy.
func (u *Upgrader) decide(legacy Legacy, orphan bool) Legacy {
	if u.pred != nil {
		// Before anything is written to standard error: it may have lost its
		// reader.
		u.pred.takeOutput()
	}
	if orphan {
		u.log.Warn("the previous process is gone before its commit: going on without what it had")
	}
	left := u.Dropped()
	u.mu.Lock()
	for _, s := range u.dropped {
		s.retire()
	}
	// A HUP may come as soon as the PID file says so, so that the phase changes
	// first.
	u.phase = phaseReady
	u.mu.Unlock()
	if u.cfg.Take != nil {
		u.cfg.Take(legacy)
		legacy = Legacy{}
	}
	if err := u.pidFile.publish(); err != nil {
		u.log.Error("the service runs, but its PID file could not be written", "error", err)
	}
	fault.Point(fault.NewPIDFile)
	// Once tableflip has passed on that this process is ready, nobody clears up after
	// an upgrade that failed any more.
	os.Unsetenv(envAttempt)
	// An error means that the predecessor is gone. So be it, it has committed; but
	// it has not told the supervisor.
	err := u.tf.Ready()
	fault.Point(fault.NewReady)
	close(u.decided)
	if u.pred == nil || orphan || err != nil {
		u.namesItself()
	}
	u.mu.Lock()
	for _, d := range u.passed {
		u.unclaimed = append(u.unclaimed, d.Name)
	}
	u.passed.Reject(u.log)
	u.mu.Unlock()
	u.background.Go(func() {
		// It may die before it names this process, although it has heard it.
		if u.pred != nil && !u.pred.farewell() && !orphan && err == nil && u.life.Err() == nil {
			u.namesItself()
		}
		close(u.alone)
		u.store()
	})
	for _, s := range left {
		s.Close()
	}
	return legacy
}

// takePIDFile makes the PID file name this process again.
func (u *Upgrader) takePIDFile() {
	if u.cfg.PIDFile == "" {
		return
	}
	if err := stagePIDFile(u.cfg.PIDFile).publish(); err != nil {
		u.log.Error("the service runs, but its PID file could not be written", "error", err)
	}
}

// Fail tells the predecessor why this process gives up, so that its caller of
// Upgrade is told. It does nothing in the first generation and after Ready. The
// process is expected to exit then.
func (u *Upgrader) Fail(reason error) {
	u.mu.Lock()
	decided := u.phase != phaseStarting && u.phase != phaseFailed
	u.mu.Unlock()
	if u.pred != nil && reason != nil && !decided {
		u.pred.fail(reason)
	}
}

// Replaced is closed when a successor has taken over. Whoever waits for it stops
// accepting, finishes what it has, and exits.
func (u *Upgrader) Replaced() <-chan struct{} { return u.replaced }

// Decided is closed when this process has become the one that decides: at once in the
// first generation, later at the predecessor's commit.
func (u *Upgrader) Decided() <-chan struct{} { return u.decided }

// Alone is closed when this process decides and no predecessor is left that would go
// on if it died: that one has let go, or is dead. Until then it is well to keep what
// the predecessor would need.
func (u *Upgrader) Alone() <-chan struct{} { return u.alone }

// Relay passes a signal on to the successor and reports whether there is one: a
// HUP that reaches a process which was just replaced is meant for the service. Do
// not relay signals that stop it. A terminal and systemd send those to all of its
// processes, and a second one ends the successor at once.
func (u *Upgrader) Relay(sig os.Signal) bool {
	select {
	case <-u.replaced:
	default:
		return false
	}
	s, ok := sig.(syscall.Signal)
	return ok && u.successor.Signal(s) == nil
}

// Stop ends this process's part: a running upgrade is given up and its new
// process killed, no other begins, the sockets are closed. Unless a successor has
// taken over, the service is at its end, and the files of unix sockets and the
// PID file are removed. Stop blocks until that is done, so neither Config.Yield
// nor Config.Resume may call it; it may be called more than once.
func (u *Upgrader) Stop() { u.stop.Do(u.end) }

func (u *Upgrader) end() {
	u.quit(ErrStopped)
	u.readying.Lock() // Ready has returned, or refuses
	defer u.readying.Unlock()
	u.mu.Lock()
	idle := u.idle
	u.mu.Unlock()
	if idle != nil {
		<-idle
	}
	u.mu.Lock()
	was := u.phase
	u.phase = phaseStopped
	u.mu.Unlock()

	u.tf.Stop()
	decided := was == phaseReady
	if was == phaseStarting || was == phaseFailed {
		u.pidFile.discard()
	}
	for _, s := range u.sockets { // no Open any more
		// One that never came to decide leaves its predecessor's files alone.
		if decided || was != phaseReplaced && s.bound {
			s.retire()
		}
		s.Close()
	}
	u.Dropped() // the rest of them
	for _, s := range u.dropped {
		s.Close()
	}
	u.passed.Close()
	if decided && u.cfg.PIDFile != "" {
		removePIDFile(u.cfg.PIDFile)
	}
	if u.pred != nil {
		u.pred.close()
	}
	u.background.Wait()
}

// errInterrupted is what the predecessor is told when nobody said why.
var errInterrupted = errors.New("interrupted before it was ready")

// Actor returns the two functions for run.Group.Add. Execute calls Ready, and
// returns nil when this process has been replaced or interrupted. Interrupt
// begins Stop and does not wait for it; execute does. When Ready fails, execute
// calls Stop and returns the error.
//
// A new process that is interrupted before its commit tells its predecessor the
// reason, which is the error of the actor that ended first.
func (u *Upgrader) Actor() (execute func() error, interrupt func(error)) {
	ctx, cancel := context.WithCancelCause(context.Background())
	execute = func() error {
		legacy, err := u.Ready(ctx)
		legacy.Close()
		if err == nil {
			select {
			case <-u.replaced:
				return nil
			case <-ctx.Done():
			}
		} else if ctx.Err() != nil {
			err = nil
		}
		u.Stop()
		return err
	}
	return execute, func(reason error) {
		if reason == nil {
			reason = errInterrupted
		}
		cancel(reason)
	}
}
