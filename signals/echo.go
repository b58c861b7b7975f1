package signals

import (
	"os"
	"time"
)

// echoTime is short for a person's two, and long for a program's.
const echoTime = 100 * time.Millisecond

// Echo tells the copy of a stop signal from a second one. timeout(1) sends a signal
// to its command and again to the group; pkill(1) reaches the anchor, which passes the
// signal on, and the parent itself. The zero value has heard nothing. It belongs to
// one goroutine.
type Echo struct {
	sig os.Signal
	at  time.Time
}

// Is reports whether sig follows an equal one within 100 ms.
func (e *Echo) Is(sig os.Signal) bool {
	if sig == e.sig && time.Since(e.at) < echoTime {
		return true
	}
	e.sig, e.at = sig, time.Now()
	return false
}
