package drain

import "time"

// This file decides when the handlers of streams are told that their connections should
// leave.

// A word is what a handler is told.
type word int

const (
	nothing word = iota // go on
	nowhere             // it should end: nobody takes the connection
	away                // it may move
)

// A situation is what that depends on.
type situation struct {
	begun    bool          // the drain has
	moves    bool          // connections can move at all
	over     bool          // or could: the service stops, or something is broken
	role     Role          // what to do with them
	paused   time.Duration // how long nobody is going to take any
	since    time.Duration // from the drain's beginning
	timeout  time.Duration // of the drain
	lameDuck time.Duration
}

// say is what to tell, and when that changes by time alone, if it does.
func (s situation) say() (w word, next time.Duration) {
	// From then on there is no more waiting for somebody who takes them, so that what is
	// left can say goodbye.
	late := max(s.timeout/2, s.timeout-s.lameDuck)
	switch {
	case !s.begun:
		return nothing, 0
	case !s.moves || s.over:
		return nowhere, 0
	case s.role == Give && s.paused <= 0:
		return away, 0
	case s.since >= late:
		return nowhere, max(s.paused, 0)
	case s.role == Give:
		return nothing, min(s.paused, late-s.since)
	case s.role == Keep:
		return nothing, late - s.since
	case s.since >= s.lameDuck: // nobody has said what to do with them
		return nowhere, 0
	}
	return nothing, min(s.lameDuck, late) - s.since
}

// situation is how it is now.
func (d *Drainer) situation() situation {
	s := situation{
		begun:    d.begun.Load(),
		moves:    d.moves(),
		role:     Role(d.role.Load()),
		over:     d.broken.Load(),
		paused:   d.paused(),
		lameDuck: d.cfg.LameDuck,
	}
	if s.begun { // what follows does not change any more
		s.over = s.over || d.last
		s.since, s.timeout = time.Since(d.since), d.timeout
	}
	return s
}
