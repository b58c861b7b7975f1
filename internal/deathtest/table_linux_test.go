package deathtest_test

import (
	"slices"

	"github.com/handover-go/handover/internal/fault"
)

// A victim is a process that dies.
type victim string

const (
	oldParent victim = "old parent" // the one that decides when the step begins
	newParent victim = "new parent" // its successor, in an upgrade
	aWorker   victim = "worker"     // the one that takes the step, or one that serves
	theAgent  victim = "agent"
	theAnchor victim = "anchor"
)

var victims = []victim{oldParent, newParent, aWorker, theAgent, theAnchor}

// way is how a service comes to take a step.
type way string

const (
	upgrades way = "upgrade"           // HUP
	stops    way = "stop"              // TERM
	resumes  way = "death of a parent" // kill -9
	starts   way = "start"             // of the service
)

// outcome is what has become of the service.
type outcome string

const (
	oldDecides outcome = "old"     // the old parent decides: an upgrade has changed nothing
	newDecides outcome = "new"     // the new parent does
	another    outcome = "another" // one that the anchor has started
	goesOn     outcome = "goes on" // the parent that the service was started with decides
	ended      outcome = "ends"    // the service does: as it was to, or before it has ever served
)

// step is a row of the table: the outcomes that are allowed, by who dies. Without one there is
// no such process at that step.
type step struct {
	name string
	way  way
	may  map[victim][]outcome
}

// untold reports whether the history need not tell of a victim's death: of a parent that has
// given all away, and is about to end, or that has not decided yet.
func (s step) untold(v victim) bool {
	if v != oldParent {
		return false
	}
	if s.way == resumes {
		return slices.Contains([]string{fault.NewBegins, fault.NewMet, fault.NewBuilt, fault.LeftFound, fault.NewPrepared}, s.name)
	}
	return slices.Contains([]string{
		fault.OldCommitted, fault.NewGotCommit, fault.NewTook, fault.NewPIDFile, fault.NewReady, fault.OldHeardReady, fault.OldNamedNew, fault.OldReplaced,
		fault.NewCommitted, fault.RollStarted, fault.RollReady, fault.RollRetired, fault.RollExited, fault.DrainBegins, fault.DrainQuiet,
		fault.MoveGiven, fault.MoveTaken, fault.DrainEnds, fault.DrainExits,
	}, s.name)
}

// in makes a row.
func in(w way, name string, old, new, others []outcome) step {
	s := step{name, w, map[victim][]outcome{oldParent: old, aWorker: others, theAgent: others, theAnchor: others}}
	if new != nil {
		s.may[newParent] = new
	}
	return s
}

// aloneAt is a row of a moment in which there is no parent: with the anchor dies the last one who
// could start one.
func aloneAt(name string) step {
	s := in(resumes, name, nil, nil, one(another))
	s.may[theAnchor] = one(ended)
	return s
}

// alone reports whether it is one.
func (s step) alone() bool { return s.way == resumes && s.may[theAnchor][0] == ended }

// starting is a row of a start, at which there are those processes besides parent and anchor.
func starting(name string, parent []outcome, there ...victim) step {
	s := step{name, starts, map[victim][]outcome{newParent: parent, theAnchor: one(goesOn)}}
	for _, v := range there {
		s.may[v] = one(goesOn)
	}
	return s
}

// stopping is a row of a stop, at which there are those processes besides parent and anchor.
func stopping(name string, there ...victim) step {
	s := step{name, stops, map[victim][]outcome{oldParent: one(ended), theAnchor: one(ended)}}
	for _, v := range there {
		s.may[v] = one(ended)
	}
	return s
}

func one(o ...outcome) []outcome { return o }

// steps are all rows, in the order in which they are taken.
var steps = slices.Concat(
	upgradeSteps,
	[]step{
		in(upgrades, fault.RollStarted, one(oldDecides, newDecides, another), one(oldDecides, newDecides, another), one(newDecides, oldDecides)),
		in(upgrades, fault.RollReady, one(newDecides, another), one(oldDecides, another), one(newDecides, oldDecides)),
		in(upgrades, fault.RollRetired, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.RollExited, one(another), nil, one(newDecides)),
		in(upgrades, fault.DrainBegins, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.DrainQuiet, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.MoveGiven, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.MoveTaken, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.DrainEnds, one(newDecides, another), nil, one(newDecides)),
		in(upgrades, fault.DrainExits, one(newDecides, another), nil, one(newDecides)),
		aloneAt(fault.LeftReports),
		aloneAt(fault.LeftWaits),
		in(resumes, fault.NewBegins, one(another), nil, one(another)),
		in(resumes, fault.NewMet, one(another), nil, one(another)),
		in(resumes, fault.NewBuilt, one(another), nil, one(another)),
		in(resumes, fault.LeftFound, one(another), nil, one(another)),
		in(resumes, fault.NewPrepared, one(another), nil, one(another)),
		in(resumes, fault.NewTook, one(another), nil, one(another)),
		in(resumes, fault.NewPIDFile, one(another), nil, one(another)),
		in(resumes, fault.NewReady, one(another), nil, one(another)),
		starting(fault.NewBegins, one(ended)),
		starting(fault.NewMet, one(ended)),
		starting(fault.NewBuilt, one(ended)),
		{fault.RollStarted, starts, map[victim][]outcome{
			newParent: one(ended),
			theAgent:  one(goesOn, ended), // if it was ready, or was not: then the start has failed
			theAnchor: one(goesOn),
		}},
		starting(fault.NewPrepared, one(ended), theAgent, aWorker),
		starting(fault.NewTook, one(ended), theAgent, aWorker),
		starting(fault.NewPIDFile, one(ended), theAgent, aWorker),
		starting(fault.NewReady, one(ended), theAgent, aWorker),
		stopping(fault.StopBegins, aWorker, theAgent),
		stopping(fault.StopTold, theAgent), // workers may have ended by now
		stopping(fault.DrainBegins, aWorker, theAgent),
		stopping(fault.DrainQuiet, aWorker, theAgent),
		stopping(fault.DrainEnds, aWorker, theAgent),
		stopping(fault.DrainExits, aWorker, theAgent),
		stopping(fault.RollExited, theAgent),
		stopping(fault.StopEnds),
	},
)

var upgradeSteps = []step{
	in(upgrades, fault.OldBegins, one(another), nil, one(newDecides)),
	// What the new one is to inherit is on its way at the same time. Without it, it gives up.
	in(upgrades, fault.OldStarted, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.NewBegins, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.NewMet, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.NewBuilt, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.NewPrepared, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.OldPrepared, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.OldYielded, one(newDecides, another), one(oldDecides), one(newDecides)),
	in(upgrades, fault.OldCommitted, one(newDecides, another), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.NewGotCommit, one(newDecides, another), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.NewTook, one(newDecides, another), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.NewPIDFile, one(newDecides, another), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.NewReady, one(newDecides, another), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.OldHeardReady, one(newDecides), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.OldNamedNew, one(newDecides), one(oldDecides, another), one(newDecides)),
	in(upgrades, fault.OldReplaced, one(newDecides), one(another), one(newDecides)),
	in(upgrades, fault.NewCommitted, one(newDecides, another), one(oldDecides, another), one(newDecides)),
}
