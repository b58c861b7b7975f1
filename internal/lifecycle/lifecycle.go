// Package lifecycle decides what happens to workers. It is pure: no clock, no
// process, no goroutine, no I/O.
//
//   - [Next] is the life of one worker: a table of every state and every event.
//   - [Plan] compares the workers of one group with what is wanted and says
//     whom to start and whom to let go.
//   - [Backoff] is how long a slot waits after a worker that could not start.
//   - [Budget] is how often workers that served and then failed are replaced, and
//     [Due] says which of those that were tolerated meanwhile goes next.
//   - [Recycle] says which of those that are well, but have reached a limit, is
//     replaced next.
//
// Package workerset is the shell that carries the decisions out. TABLE.md is the
// table for reading. The promises are explored exhaustively (explore_test.go),
// with a shell that keeps to this:
//
//   - The first event of a worker is Spawned, SpawnFailed, Adopted or Died; one of
//     them comes, also when the worker was let go before it had a process.
//   - In a committed generation Commit follows Ready: before Standby it is lost.
//   - An adopted worker's answer is an event again: Spawned (it is only
//     starting), Ready (it waits to be told to accept), Failed, Tolerated, Leaving,
//     Drained; none when it serves.
//   - A deadline belongs to one worker and one arming, and dies with either.
//   - Want.Halted is set when the replacement of a stale worker that serves is
//     lost before it served, before Plan is asked again: not
//     when it is dead, for it may still drain or terminate. The same holds for
//     the backoff of a slot.
//   - Plan is asked after every event, until the set stops.
//   - Want.Waits names a slot before Plan is asked again after the event that makes
//     it wait, and every wait ends.
//   - Tolerated is for a failure of a worker that accepts and can go on accepting,
//     when the budget has nothing left; every other one is Failed. Once the worker
//     is forgiven, what it says carries that failure no longer. One that cannot go
//     on is Failed at once, and it is its slot that waits for the budget.
//   - Whom Due names is given Failed, in that order and as far as the budget goes.
//     It is asked after Plan, and again until none is degraded.
//   - Whom Recycle names is Worn, until it is stale, or until the worker that was to
//     replace it is lost before it served.
package lifecycle

import "fmt"

// State is where one incarnation of a worker stands in its life. A worker that
// is restarted is a new incarnation and begins at Spawning.
type State uint8

const (
	Spawning    State = iota // wanted, no process yet
	Starting                 // a process that has not said that it is ready
	Standby                  // ready, not accepting: waits for the commit
	Serving                  // accepting
	Degraded                 // accepting, although it reported failures: its group fails too often to replace it
	Condemned                // failing: its replacement is asked for, it accepts until told to drain
	Draining                 // not accepting, finishes what it has
	Terminating              // was sent a last request to exit
	Killing                  // was sent SIGKILL
	Exited                   // gone
	numStates
)

var stateNames = [numStates]string{
	Spawning: "spawning", Starting: "starting", Standby: "standby",
	Serving: "serving", Degraded: "degraded", Condemned: "condemned",
	Draining: "draining", Terminating: "terminating", Killing: "killing",
	Exited: "exited",
}

func (s State) String() string {
	if s < numStates {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// Accepts reports whether a worker in this state takes new connections.
func (s State) Accepts() bool { return s == Serving || s == Degraded || s == Condemned }

// Serves reports whether a worker in this state can stand in for another.
func (s State) Serves() bool { return s == Serving || s == Degraded }

// Arrives reports whether a worker in this state may come to serve.
func (s State) Arrives() bool { return s == Spawning || s == Starting || s == Standby }

// Event is something that happened to a worker or was decided about it.
type Event uint8

const (
	Spawned     Event = iota // its process exists; adopted, it says that it is only starting
	SpawnFailed              // its process could not be started
	Ready                    // it says that it could serve
	Commit                   // its generation may serve
	Adopted                  // it was taken over from another parent
	Failed                   // it is to be replaced: it failed, or was asked to retire by a signal, or degraded it has its turn
	Tolerated                // it failed, can go on, and its group fails too often to replace it
	Hung                     // it missed its heartbeats
	Leaving                  // it says that it drains, without having been told
	Retire                   // it is not wanted any longer
	Replaced                 // its replacement serves
	Drained                  // it says that it has nothing left
	Lost                     // its channel ended or carried garbage
	Deadline                 // the deadline of its present state passed
	Kill                     // it has to go at once
	Died                     // its process is gone
	Stop                     // the whole set stops
	numEvents
)

var eventNames = [numEvents]string{
	Spawned: "spawned", SpawnFailed: "spawn-failed", Ready: "ready",
	Commit: "commit", Adopted: "adopted", Failed: "failed", Tolerated: "tolerated",
	Hung: "hung", Leaving: "leaving", Retire: "retire", Replaced: "replaced",
	Drained: "drained", Lost: "lost", Deadline: "deadline", Kill: "kill",
	Died: "died", Stop: "stop",
}

func (e Event) String() string {
	if e < numEvents {
		return eventNames[e]
	}
	return fmt.Sprintf("event(%d)", uint8(e))
}

// Effect is a set of things to do. The shell carries them out in the order of
// their bits.
type Effect uint16

const (
	Disarm      Effect = 1 << iota // forget the deadline of the state that was left
	Arm                            // set the deadline of the state that was entered
	Ask                            // ask the worker what it does
	SendGo                         // tell it to accept
	SendHold                       // tell it that it was heard and goes on accepting
	SendForgive                    // tell it that its failure is known and forgiven: it goes on as if nothing had been
	SendDrain                      // tell it to stop accepting and to finish
	SendExit                       // tell it that it may exit once it has drained
	CloseChan                      // close its channel: a library worker takes that as a drain
	SignalAbrt                     // SIGABRT: a goroutine dump, then death
	SignalTerm                     // SIGTERM
	SignalKill                     // SIGKILL
	Report                         // tell the log and the watchers
	numEffects  = iota
)

var effectNames = [numEffects]string{
	"disarm", "arm", "ask", "go", "hold", "forgive", "drain", "exit",
	"close", "SIGABRT", "SIGTERM", "SIGKILL", "report",
}

func (f Effect) String() string {
	s := ""
	for i, name := range effectNames {
		if f&(1<<i) != 0 {
			if s != "" {
				s += "+"
			}
			s += name
		}
	}
	return s
}

// Has reports whether f contains all of x.
func (f Effect) Has(x Effect) bool { return f&x == x }

// Next is the state that a worker in state s enters when e happens, and what is
// to be done. It is total: an event that means nothing in a state leaves it as
// it is, with no effect.
func Next(s State, e Event) (State, Effect) {
	if s >= numStates || e >= numEvents {
		panic(fmt.Sprintf("lifecycle: no cell for %v, %v", s, e))
	}
	c := table[s][e]
	return c.next, c.effect
}
