// Package fault names the steps of a service's life at which a process may die or stop, so
// that tests can make it do so at each of them.
package fault

import "sync/atomic"

var hook atomic.Pointer[func(step string)]

// Point is a step. Without a hook it does nothing.
func Point(step string) {
	if fn := hook.Load(); fn != nil {
		(*fn)(step)
	}
}

// OnStep sets what is called at each step, in the goroutine that takes it. It is for
// tests.
func OnStep(fn func(step string)) { hook.Store(&fn) }

// Steps of an upgrade, in the order in which they are taken: those of the process
// that is to be replaced and those of its successor.
const (
	OldBegins     = "old: begins"      // nothing is started
	OldStarted    = "old: started"     // the new program runs
	OldPrepared   = "old: prepared"    // the new one could serve, and has said so
	OldYielded    = "old: yielded"     // has stopped deciding
	OldCommitted  = "old: committed"   // has sent all that it had
	OldHeardReady = "old: heard ready" // the new one decides, and has said so
	OldNamedNew   = "old: named it"    // has told the supervisor
	OldReplaced   = "old: replaced"    // knows of it, and exits
	NewBegins     = "new: begins"      // is there
	NewMet        = "new: met"         // has the sockets
	NewBuilt      = "new: built"       // has a worker set, of which nothing runs
	NewPrepared   = "new: prepared"    // has a worker that could serve, and has not said so
	NewGotCommit  = "new: got commit"  // has all that the old one had
	NewTook       = "new: took"        // its workers accept, it decides
	NewPIDFile    = "new: wrote pid"   // the PID file names it
	NewReady      = "new: ready"       // has told tableflip
	NewCommitted  = "new: committed"   // goes on to replace the old workers
)

// Steps of a first parent, and of one that is started when another has died, are those of a
// successor but for NewGotCommit and NewCommitted.

// Steps of a parent that replaces a worker, drains one, and stops.
const (
	RollStarted = "roll: started" // a worker's process is there
	RollReady   = "roll: ready"   // it could serve
	RollRetired = "roll: retired" // the one that it replaces has been told to drain
	RollExited  = "roll: exited"  // one has ended, and was reaped
	StopBegins  = "stop: begins"  // was asked to
	StopTold    = "stop: told"    // workers have been told
	StopEnds    = "stop: ends"    // has no workers any more
	LeftFound   = "left: found"   // has taken over a worker that a dead parent had left
)

// Steps of a worker.
const (
	DrainBegins = "drain: begins" // was told to
	DrainQuiet  = "drain: quiet"  // accepts no more
	DrainEnds   = "drain: ends"   // has nothing left
	DrainExits  = "drain: exits"  // may exit
	MoveGiven   = "move: given"   // has given a connection away
	MoveTaken   = "move: taken"   // has taken one
	LeftReports = "left: reports" // has no parent, and is about to report
	LeftWaits   = "left: waits"   // has reported
)

// Upgrade are all steps of an upgrade.
var Upgrade = []string{
	OldBegins, OldStarted, OldPrepared, OldYielded, OldCommitted, OldHeardReady, OldNamedNew, OldReplaced,
	NewBegins, NewMet, NewBuilt, NewPrepared, NewGotCommit, NewTook, NewPIDFile, NewReady, NewCommitted,
}
