package upgrader

import (
	"context"
	"errors"
	"os"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/shortage"
)

// exitGrace is how long a new process that said why it gives up, or closed its end,
// may take to exit.
const exitGrace = 500 * time.Millisecond

// commitTimeout is how long a new process may take from the commit to its word to
// tableflip. It does next to nothing then, and nobody decides. It is a variable
// for the tests.
var commitTimeout = 10 * time.Second

// errClosed is the cause where a new process hung up and did not exit.
var errClosed = errors.New("the new program closed its end of the succession")

// errEnded is the cause where the new process gave none.
var errEnded = errors.New("the new program ended before it was ready")

// succession is the old process's side of the conversation, owned by the
// goroutine that runs Upgrade.
type succession struct {
	u *Upgrader
	a *attempt

	messages <-chan heard    // nil when there are no more
	said     <-chan struct{} // has a value once the new process is ready, see attempt.read

	yielded bool             // Yield was called and the commit is under way
	reason  string           // what the new process said when it gave up
	cause   error            // why this side gave up
	overdue <-chan time.Time // when it will, if nothing happens
	excuse  error            // and why
}

// handle answers one message of the new process.
func (s *succession) handle(ctx context.Context, h heard) {
	switch {
	case h.err != nil:
		s.give(h.err)
	case h.Cmd == cmdHello:
		if err := checkVersion(h.message); err != nil {
			s.give(err)
		}
	case h.Cmd == cmdWard:
		switch err := s.a.entrusted(h.message); {
		case err != nil && !s.yielded:
			s.give(err)
		case err != nil: // it decides already: what is at stake is one worker
			s.u.log.Warn("a worker of the new program is killed if the upgrade fails", "error", err)
		}
	case h.Cmd == cmdFailed:
		s.reason = h.Reason
		s.give(ErrRejected)
	case h.Cmd == cmdPrepared:
		if !s.yielded && s.cause == nil {
			s.u.progress("the new program could serve")
			s.commit(ctx)
		}
	}
	// cmdAck needs no action: the new process decides from the moment it has the
	// commit, and if it dies before Ready, acknowledged or not, this one goes on.
}

// lastWords takes what a process that is dead has said before.
func (s *succession) lastWords() {
	if s.messages == nil {
		return
	}
	// Others may have its end of the connection, too, so that there is no end of
	// file.
	_ = s.a.conn.SetReadDeadline(time.Now().Add(lastWords))
	for h := range s.messages {
		if h.err == nil && h.Cmd == cmdWard {
			_ = s.a.entrusted(h.message) // else it is killed with the rest
		}
		if h.err == nil && h.Cmd == cmdFailed {
			s.reason = h.Reason
			if s.cause == nil {
				s.cause = ErrRejected
			}
		}
	}
}

// commit is the step at which the decision changes sides. From Yield on this
// process does nothing to what it handed over, until the new one is dead.
func (s *succession) commit(ctx context.Context) {
	var legacy Legacy
	if yield := s.u.cfg.Yield; yield != nil {
		var err error
		if legacy, err = yield(ctx); err != nil {
			s.give(err)
			return
		}
	}
	s.yielded = true
	if err := expired(ctx); err != nil {
		s.give(err) // while it is certain that nobody else decides
		return
	}
	s.expect(commitTimeout, ErrTimeout)
	timer := time.AfterFunc(commitTimeout, s.a.stopSending)
	defer timer.Stop()
	<-s.a.started
	s.a.output.pause() // the new process reads it from here on
	s.sent(ctx, sendLegacy(s.a.conn, legacy))
	fault.Point(fault.OldCommitted)
}

// expired is why ctx has ended, or would have if its timer were not late: this
// process may have been stopped for a while.
func expired(ctx context.Context) error {
	if limit, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(limit) {
		return ErrTimeout
	}
	return context.Cause(ctx)
}

// saysReady reports whether the new process has taken over and is ready, also when
// nobody has heard that yet: this process may have been stopped while its time ran
// out, and the other one may have replaced all workers since.
func (s *succession) saysReady() bool {
	if !s.yielded || s.cause != nil {
		return false
	}
	_ = s.a.ready.SetReadDeadline(time.Now())
	_, ok := <-s.said
	return ok
}

// sent judges the error of a message to the new process.
func (s *succession) sent(ctx context.Context, err error) {
	switch {
	case err == nil:
	case errors.Is(err, syscall.EPIPE):
		s.expect(exitGrace, errClosed) // most likely it is dead
	case errors.Is(err, os.ErrDeadlineExceeded) && ctx.Err() != nil:
		s.give(context.Cause(ctx))
	case errors.Is(err, os.ErrDeadlineExceeded):
		s.give(ErrTimeout)
	default:
		s.give(err)
	}
}

// expect gives the new process a time to do something, or to exit.
func (s *succession) expect(d time.Duration, excuse error) {
	s.overdue, s.excuse = time.After(d), excuse
}

// give ends the attempt. The first cause counts.
func (s *succession) give(cause error) {
	if s.cause == nil {
		s.cause = cause
	}
	if errors.Is(cause, ErrRejected) {
		// It exits by itself, with a status and words of its own.
		s.expect(exitGrace, ErrRejected)
		return
	}
	s.kill()
}

func (s *succession) kill() {
	<-s.a.started
	if s.a.proc != nil {
		_ = s.a.proc.Signal(syscall.SIGKILL)
	}
}

// failed clears away and describes the failure. The new process is dead.
func (s *succession) failed(flipErr error) error {
	s.lastWords()
	a, cause := s.a, s.cause
	if s.yielded {
		s.u.takePIDFile() // it may name the new process
		if s.u.cfg.Resume != nil {
			s.u.cfg.Resume()
		}
	}
	wards := a.wards
	a.wards = nil
	clearAttempt(envAttempt+"="+a.mark, wards)
	for _, w := range wards {
		s.u.log.Info("what the new program had started serves already and is drained", "pid", w.proc.Pid, "timeout", w.timeout)
		s.u.background.Go(func() { w.drain(s.u.Stdio()) })
	}
	a.output.resume()
	a.output.finish(lastWords)
	switch {
	case cause != nil:
		if errors.Is(cause, context.DeadlineExceeded) {
			cause = ErrTimeout // the caller's deadline
		}
	case a.spawnErr != nil:
		cause = a.spawnErr
	case !a.spawned:
		cause = flipErr
	default:
		cause = errEnded
	}
	e := &FailedError{Path: a.name, Err: shortage.Explain(cause), Reason: s.reason, ExitCode: -1}
	if a.proc != nil {
		st := a.proc.Wait()
		e.Started, e.Pid, e.ExitCode, e.Status = true, a.proc.Pid, st.Code, st.String()
		e.Output = a.output.String()
		a.proc.Close()
	}
	return e
}
