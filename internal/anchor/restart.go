package anchor

import (
	"time"

	"github.com/handover-go/handover/internal/launch"
)

// backoff says how long to wait before a parent is started again: 100 ms, and twice as
// long each time, up to 10 s, until one has been up for a minute.
type backoff struct{ failed int }

const (
	firstWait = 100 * time.Millisecond
	maxWait   = 10 * time.Second
	goodTime  = time.Minute
)

// next is for a parent that has been up for so long.
func (b *backoff) next(up time.Duration) time.Duration {
	if up >= goodTime {
		b.failed = 0
	}
	wait := min(maxWait, firstWait<<min(b.failed, 20))
	b.failed++
	return wait
}

// ending is how a parent has ended.
type ending struct {
	status launch.Status
	ready  bool // it had said READY=1
	served bool // it, or one before it, had
	lost   bool // it had named a successor, which nobody has seen
	stops  int  // how often the service was asked to stop
}

// exitPanic is the exit code of a Go program that panics.
const exitPanic = 2

// unexpected reports whether the service has lost its parent and is not at its end. It
// is at its end when it was asked to be, when a parent that was ready has said so by its
// exit code, or when it has never served: whoever has just started it is to see why.
func (e ending) unexpected() bool {
	switch st := e.status; {
	case e.stops > 0 || !e.served:
		return false
	case !st.Known || st.Signal != 0:
		return true
	case st.Code == 0:
		return e.lost
	case st.Code == exitPanic:
		return true
	default:
		return !e.ready // it could not come up: not yet
	}
}
