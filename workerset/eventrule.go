package workerset

import "slices"

// This file says in which order a worker's events come. It is pure.

// eventKinds is all of them, in their order.
var eventKinds = []EventKind{
	EventFork, EventOnline, EventListening, EventReady, EventError, EventDisconnect, EventExit, EventClose,
}

// announced is a set of kinds: what has been told of a worker.
type announced uint16

func kindsOf(kinds ...EventKind) (a announced) {
	for _, k := range kinds {
		if i := slices.Index(eventKinds, k); i >= 0 {
			a |= 1 << i
		}
	}
	return a
}

// names is what travels to the next parent.
func (a announced) names() (kinds []EventKind) {
	for i, k := range eventKinds {
		if a&(1<<i) != 0 {
			kinds = append(kinds, k)
		}
	}
	return kinds
}

// eventRules: an event is told if all that it needs have been told, and none that it
// never follows. What comes with it is told first, if it has not been. Nothing is put
// off: what may not be told now never is.
var eventRules = []struct {
	kind  EventKind
	needs announced
	never announced
	first EventKind
}{
	{kind: EventFork, never: kindsOf(EventFork, EventError, EventClose)},
	{kind: EventOnline, needs: kindsOf(EventFork), never: kindsOf(EventOnline, EventDisconnect, EventExit, EventClose)},
	{kind: EventListening, needs: kindsOf(EventOnline), never: kindsOf(EventExit, EventClose)},
	{kind: EventReady, needs: kindsOf(EventOnline), never: kindsOf(EventReady, EventExit, EventClose)},
	{kind: EventError, never: kindsOf(EventExit, EventClose)},
	{kind: EventDisconnect, needs: kindsOf(EventFork), never: kindsOf(EventDisconnect, EventExit, EventClose)},
	{kind: EventExit, needs: kindsOf(EventFork), never: kindsOf(EventExit, EventClose), first: EventDisconnect},
	{kind: EventClose, needs: kindsOf(EventExit), never: kindsOf(EventClose)},
	{kind: EventClose, needs: kindsOf(EventError), never: kindsOf(EventFork, EventClose)}, // it was never there
}

// next is what is to be told when something of that kind has happened, and what has
// been told then.
func (a announced) next(kind EventKind) (tell []EventKind, after announced) {
	for _, r := range eventRules {
		if r.kind != kind || a&r.needs != r.needs || a&r.never != 0 {
			continue
		}
		if r.first != "" && a&kindsOf(r.first) == 0 {
			tell = append(tell, r.first)
		}
		tell = append(tell, kind)
		return tell, a | kindsOf(tell...)
	}
	return nil, a
}

// toldOf is what was told of a worker by the parents before. One of an older version
// does not say, and its workers count as ready.
func toldOf(ws workerState) announced {
	if ws.Announced == nil {
		return kindsOf(EventFork, EventOnline, EventListening, EventReady)
	}
	return kindsOf(ws.Announced...)
}
