package upgrader

import (
	"context"
	"errors"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// succession is the old process's side of the conversation, owned by the
// goroutine that runs Upgrade.
type succession struct {
	u *Upgrader
	a *attempt

	yielded bool             // Yield was called and the commit is under way
	reason  string           // what the new process said when it gave up
	cause   error            // why this side gave up
	overdue <-chan time.Time // when a new process that gave up should be gone
}

// handle answers one message of the new process.
func (s *succession) handle(ctx context.Context, m message) {
	switch m.Cmd {
	case cmdHello:
		if err := checkVersion(m); err != nil {
			s.give(err)
		}
	case cmdFailed:
		s.reason = m.Reason
		s.give(ErrRejected)
	case cmdPrepared:
		if !s.yielded && s.cause == nil {
			s.commit(ctx)
		}
	}
	// cmdAck needs no action: the new process decides from the moment it has the
	// commit, and if it dies before Ready, acknowledged or not, this one goes on.
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
	legacy.Files = append(s.a.output.readers(), legacy.Files...)
	// A new process that has stopped reading must not stop this one.
	deadline, ok := ctx.Deadline()
	if ok {
		_ = s.a.conn.SetWriteDeadline(deadline)
	}
	if err := sendLegacy(s.a.conn, legacy); err != nil {
		s.give(err)
	}
}

// give ends the attempt. The first cause counts.
func (s *succession) give(cause error) {
	if s.cause == nil {
		s.cause = cause
	}
	if errors.Is(cause, ErrRejected) {
		// It exits by itself, with a status and words of its own.
		s.overdue = time.After(exitGrace)
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

// exitGrace is how long a new process that said why it gives up may take to exit.
const exitGrace = 500 * time.Millisecond

// orphanGrace is how long what a failed process had started may take to end by
// itself before it is killed: its workers see their channel end and have nothing
// to finish.
const orphanGrace = 200 * time.Millisecond

// failed clears away and describes the failure. The new process is dead.
func (s *succession) failed(flipErr error) error {
	a := s.a
	if s.yielded && s.u.cfg.Resume != nil {
		s.u.cfg.Resume()
	}
	clearAttempt(envAttempt+"="+a.mark, orphanGrace)
	a.output.finish(100 * time.Millisecond)
	e := &FailedError{Path: a.path, Err: s.cause, Reason: s.reason, ExitCode: -1}
	switch {
	case errors.Is(s.cause, context.DeadlineExceeded):
		e.Err = ErrTimeout
	case errors.Is(s.cause, ErrSpent) || flipErr == nil:
		e.Err = ErrSpent
	case s.cause == nil && a.spawnErr != nil:
		e.Err = a.spawnErr
	case s.cause == nil:
		e.Err = errors.New("the new program ended before it was ready")
	}
	if a.proc != nil {
		st := a.proc.Wait()
		e.Started, e.Pid, e.ExitCode, e.Status = true, a.proc.Pid, st.Code, st.String()
		e.Output = a.output.String()
		a.proc.Close()
	}
	return e
}

// clearAttempt waits until nothing that the failed process had started is left,
// and kills what is left after the grace.
func clearAttempt(mark string, grace time.Duration) {
	deadline := time.Now().Add(grace)
	for launch.CountOrphans(mark) > 0 && time.Now().Before(deadline) {
		time.Sleep(2 * time.Millisecond)
	}
	launch.KillOrphans(mark)
}
