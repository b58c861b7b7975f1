package upgrader

import (
	"errors"
	"fmt"
	"strings"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
)

// ErrKind is wrapped where a socket is not of the kind that is asked for: what a
// supervisor has passed under a name, or the network of Listen and Packet.
var ErrKind = listen.ErrKind

// Reasons for which Upgrade did not even start the new program.
var (
	// ErrNotReady: Ready has not been called yet, or has not returned.
	// ErrListener: that listener is not one of Upgrader.Listen's.
	ErrListener = errors.New("not a listener of this upgrader's")
	ErrNotReady = errors.New("this process is not ready itself yet: wait until it serves, then upgrade again")
	// ErrInProgress: another call of Upgrade is at work.
	ErrInProgress = errors.New("an upgrade is in progress already: wait for its result")
	// ErrPredecessorAlive: the process before this one still drains, and the
	// context ended before it was gone.
	ErrPredecessorAlive = errors.New("the previous process still drains: try again when it has exited")
	// ErrStopped: Stop was called, or the actor was interrupted.
	ErrStopped = errors.New("this process is stopping: no upgrade any more")
	// ErrUnsupported: this operating system has no upgrades.
	ErrUnsupported = launch.ErrUnsupported
)

// ErrTimeout is in a FailedError when the new program was not ready in time.
var ErrTimeout = errors.New("not ready in time")

// ErrRejected is in a FailedError when the new program itself gave up before the
// commit; Reason says why.
var ErrRejected = errors.New("the new program gave up")

// ErrForeign is in a FailedError when the new program took over by tableflip
// alone. It is no program of this package's: it knows nothing of the commit.
var ErrForeign = errors.New("the new program upgrades by tableflip alone: build it with handover's upgrader, or restart the service")

// FailedError says why an upgrade failed before its commit. Nothing has changed:
// the process that was asked goes on serving, and the new one, with all that it
// had started, is gone.
type FailedError struct {
	Path   string // the program that was started
	Err    error  // what went wrong: ErrTimeout, ErrRejected, ErrForeign, ErrStopped, a context's cause, fs.ErrNotExist, …
	Reason string // what the new program itself said, if it did
	// Started is false when the program could not even be executed. Otherwise
	// Pid was its pid and Status is how it ended, "exit status 3" or "killed by
	// SIGKILL".
	Started  bool
	Pid      int
	ExitCode int // -1 when it was killed by a signal or did not start
	Status   string
	Output   string // of its standard output and error the first 4 KiB and the last 4
}

func (e *FailedError) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "upgrade to %s failed, nothing has changed: ", e.Path)
	switch {
	case e.Reason != "":
		b.WriteString(e.Reason)
	case e.Err != nil:
		b.WriteString(e.Err.Error())
	}
	if e.Started {
		fmt.Fprintf(&b, " (pid %d: %s)", e.Pid, e.Status)
	}
	if e.Output != "" {
		fmt.Fprintf(&b, "; its last output:\n%s", e.Output)
	}
	return b.String()
}

func (e *FailedError) Unwrap() error { return e.Err }
