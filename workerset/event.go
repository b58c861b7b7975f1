package workerset

import (
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// EventKind is what an Event tells of. The words are Node's, from cluster and
// child_process, and so is their order; [EventReady] is ours.
type EventKind string

const (
	// EventFork: its process was started.
	EventFork EventKind = "fork"
	// EventOnline: it runs: a worker of this binary has said its first word, and a
	// Program with a path is believed to run when it was started.
	EventOnline EventKind = "online"
	// EventListening: one of its sockets is served. It comes once for each, and for a
	// program that does not say so when it is ready.
	EventListening EventKind = "listening"
	// EventReady: it could serve.
	EventReady EventKind = "ready"
	// EventError: something is wrong with it that is not its end: it could not be
	// started, or not be sent a signal; was not ready in time; says that it has failed,
	// or says nothing any more; misuses its channel. It may come more than once.
	EventError EventKind = "error"
	// EventDisconnect: its channel has ended. At the latest that is when it exits.
	EventDisconnect EventKind = "disconnect"
	// EventExit: its process has ended.
	EventExit EventKind = "exit"
	// EventClose: nothing of it is left: its output streams have ended, too, which what
	// it has started may hold open. Or it was never there.
	EventClose EventKind = "close"
)

// Event is something that has happened to a worker. Of each worker they come in the
// order fork, online, listening, ready, disconnect, exit, close, where a worker that
// gets no further leaves some out, and error comes anywhere before exit. One that could
// not be started has error and close alone. A program that closes its channel early is
// disconnected before it is ready.
//
// Over an upgrade a worker is told of by whoever decides about it: what the parent
// before has told is not told again, and the worker's exit is told by the parent that
// sees it.
type Event struct {
	Kind       EventKind `json:"kind"`
	Time       time.Time `json:"time"`
	Group      string    `json:"group"`
	Slot       int       `json:"slot"`
	ID         int       `json:"id"` // unique in the group and generation
	Generation int       `json:"generation"`
	Pid        int       `json:"pid,omitempty"` // 0: it could not be started
	// Socket is the name of the one that is served, Network and Addr what it is bound
	// to, in an EventListening.
	Socket  string `json:"socket,omitempty"`
	Network string `json:"network,omitempty"`
	Addr    string `json:"addr,omitempty"`
	// Cause and Reason say what is wrong in an EventError, and in an EventExit why it
	// ended if the set did not want it to, or the limit that it had reached (Recycle): a
	// word and a text for people.
	Cause  string `json:"cause,omitempty"`
	Reason string `json:"reason,omitempty"`
	// Code is the exit status in an EventExit, -1 where a signal has ended it, which is
	// in Signal then, or where Unknown: it was no child of this process, and nobody
	// has told.
	Code    int            `json:"code,omitempty"`
	Signal  syscall.Signal `json:"signal,omitempty"`
	Unknown bool           `json:"unknown,omitempty"`
	// Voluntary, in an EventExit, is Node's exitedAfterDisconnect: the set has let it
	// go, or it has said before that it goes. Otherwise its end was an accident.
	Voluntary bool `json:"voluntary,omitempty"`
	// Missed is how many events before this one were not told, because the function
	// that is told was behind by more than 65536, or by 16 MiB of reasons.
	Missed int `json:"missed,omitempty"`
}

// announce tells Config.Events of something about in, in its turn.
func (s *Set) announce(in *incarnation, ev Event) {
	kinds, announced := in.announced.next(ev.Kind)
	in.announced = announced
	if s.news == nil {
		return
	}
	for _, kind := range kinds {
		told := Event{}
		if kind == ev.Kind {
			told = ev
		}
		told.Kind, told.Time = kind, time.Now()
		told.Group, told.Slot, told.ID, told.Generation, told.Pid = in.group.Name, in.slot, in.id, in.generation, in.pid()
		s.news.add(told)
	}
}

// listens tells that a worker serves a socket, once.
func (s *Set) listens(in *incarnation, socket string) {
	fd, ok := s.cfg.Sockets[socket]
	if !ok || in.listening[socket] {
		return
	}
	addr := listen.Addr(fd)
	if addr == nil { // a file
		return
	}
	if in.listening == nil {
		in.listening = map[string]bool{}
	}
	in.listening[socket] = true
	s.announce(in, Event{Kind: EventListening, Socket: socket, Network: addr.Network(), Addr: addr.String()})
}

// announceReady tells that a worker is ready, and hence serves its sockets.
func (s *Set) announceReady(in *incarnation) {
	if in.announced&kindsOf(EventReady) != 0 { // to the parent before, or before it began anew
		return
	}
	for _, name := range in.as.socketsOf(in.slot) {
		s.listens(in, name)
	}
	s.announce(in, Event{Kind: EventReady})
}

// announceExit tells that a process has ended.
func (s *Set) announceExit(in *incarnation) {
	ev := Event{
		Kind: EventExit, Code: in.dead.Code, Signal: syscall.Signal(in.dead.Signal),
		Cause: string(in.cause), Reason: in.reason, Voluntary: in.voluntary(),
	}
	if status := in.exitStatus(); status.Known {
		ev.Code = status.Code
	} else {
		ev.Code, ev.Unknown = -1, true
	}
	s.announce(in, ev)
	if s.lingering[in] == 0 {
		s.announce(in, Event{Kind: EventClose})
	}
}

// announceFault tells what is wrong with a worker, unless that is its end.
func (s *Set) announceFault(in *incarnation, cause wire.Cause, reason string) {
	switch cause {
	case wire.CauseExit, wire.CauseSignal, wire.CauseCrash, wire.CauseStartExit:
		return
	}
	s.announce(in, Event{Kind: EventError, Cause: string(cause), Reason: reason})
}

// deafened: a channel has ended, or is given up.
func (s *Set) deafened(in *incarnation) {
	in.deaf = true
	s.announce(in, Event{Kind: EventDisconnect})
}

// voluntary: its end was decided here, or it has said before that it goes.
func (in *incarnation) voluntary() bool {
	switch in.cause {
	case wire.CauseRetire, wire.CauseDone, wire.CauseError, wire.CausePanic, wire.CauseHandlerPanic:
		return true
	}
	return in.dismissed
}

// streamEnded: what a worker that has exited had left open has ended.
func (s *Set) streamEnded(in *incarnation) {
	if s.lingering[in]--; s.lingering[in] == 0 {
		delete(s.lingering, in)
		s.announce(in, Event{Kind: EventClose})
	}
}
