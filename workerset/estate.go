package workerset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/wire"
)

// Estate is a set on its way to another process: descriptors, which are all that
// is needed to take the workers over, and what the workers can't know.
type Estate struct {
	// Files are named KIND:GROUP/SLOT/ID/GENERATION/PID, KIND being pidfd, channel,
	// crash, and, of a program with a path, notify, stdout and stderr. A worker of
	// this binary without a channel has lost it, and drains. What is under way of
	// messages is in a file "post", their own files are post:LETTER/INDEX, and those
	// that have come with the beginning of a line residue:INDEX/GROUP/….
	Files map[string]*os.File
	State json.RawMessage
	// Dead: its process has died, and State is its Snapshot. The workers report by themselves.
	Dead bool
}

// Close closes the files.
func (e Estate) Close() {
	for _, f := range e.Files {
		f.Close()
	}
}

const (
	kindChannel = "channel:"
	kindPidfd   = "pidfd:"
	kindNotify  = "notify:"
	kindCrash   = "crash:"
	kindResidue = "residue:"
	kindPost    = "post:"
	namePost    = "post"
)

// estateVersion counts what was added.
const estateVersion = 3

// estateState is versioned by adding fields only. All of it may be missing.
type estateState struct {
	Version int `json:"v"`
	// Clock is what its times are written with, but for those of deaths, which are for people.
	Clock   clock.Reading          `json:"clock,omitzero"`
	Groups  map[string]groupState  `json:"groups"`
	Workers map[string]workerState `json:"workers,omitempty"` // by identity
	// Residue is, by identity, the part of a line that was read, for versions up to 2:
	// if it is short. All of it is in the file "post".
	Residue map[string][]byte `json:"residue,omitempty"`
}

type groupState struct {
	Count      int `json:"count"`
	Configured int `json:"configured"`
	Restarts   int `json:"restarts"`
	Failures   int `json:"failures"`
	// SlotRestarts are the restarts by slot.
	SlotRestarts map[int]int `json:"slotRestarts,omitempty"`
	// Deaths are the last that there were.
	Deaths []Death `json:"deaths,omitempty"`
	// BudgetFull is when all restarts that were taken from the budget will have been
	// refilled.
	BudgetFull time.Time `json:"budgetFull,omitzero"`
	// Common is what workers of Node's cluster have in common, by socket.
	Common map[string]json.RawMessage `json:"common,omitempty"`
}

// workerState is what was decided about a worker and is counted already.
type workerState struct {
	Began      time.Time  `json:"began,omitzero"`
	Ready      time.Time  `json:"ready,omitzero"`
	Cause      wire.Cause `json:"cause,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Blamed     time.Time  `json:"blamed,omitzero"`
	Nth        int        `json:"nth,omitempty"`
	Paid       bool       `json:"paid,omitempty"`
	Exiting    bool       `json:"exiting,omitempty"` // it has had its last word
	ExitCode   int        `json:"exitCode,omitempty"`
	Degraded   bool       `json:"degraded,omitempty"`
	Dismissed  bool       `json:"dismissed,omitempty"`
	Terminated bool       `json:"terminated,omitempty"`
	Killed     bool       `json:"killed,omitempty"`
	Let        string     `json:"let,omitempty"`
	Drain      time.Time  `json:"drain,omitzero"` // since when it drains
	// Of a program with a path, which may not be able to say it itself.
	Program bool              `json:"program,omitempty"`
	Recipe  string            `json:"recipe,omitempty"`
	Greeted bool              `json:"greeted,omitempty"`
	Asked   bool              `json:"asked,omitempty"` // was sent the drain signal
	State   string            `json:"state,omitempty"` // lifecycle's name
	Beats   bool              `json:"beats,omitempty"`
	HungMS  int64             `json:"hungAfter,omitempty"`
	Text    string            `json:"text,omitempty"`    // its STATUS
	Printed map[string][]byte `json:"printed,omitempty"` // by stream: of an unfinished line; of other workers, too
	// DrainSignal is the one that such a program expects, whatever its group executes now.
	DrainSignal int `json:"drainSignal,omitempty"`
	// Announced is what Config.Events was told.
	Announced []EventKind `json:"announced,omitempty"`
	Showed    bool        `json:"showed,omitempty"`
	Online    bool        `json:"online,omitempty"`   // a worker of Node's cluster
	Handouts  []handout   `json:"handouts,omitempty"` // to be sent
	Flying    bool        `json:"flying,omitempty"`   // the first of these was, and is not acknowledged
	Acks      int         `json:"acks,omitempty"`     // of descriptors, owed
	// Of messages between workers.
	Talks    bool         `json:"talks,omitempty"`
	Calls    map[int]call `json:"calls,omitempty"`
	LastCall int          `json:"lastCall,omitempty"`
	Parcel   int          `json:"parcel,omitempty"` // whose file is not acknowledged
}

// times are those by which something is decided or measured: what has happened, and what may
// be still to come.
func (st *estateState) times(past, ahead func(time.Time) time.Time) {
	for name, gs := range st.Groups {
		gs.BudgetFull = ahead(gs.BudgetFull)
		st.Groups[name] = gs
	}
	for identity, ws := range st.Workers {
		for _, t := range []*time.Time{&ws.Began, &ws.Ready, &ws.Blamed, &ws.Drain} {
			*t = past(*t)
		}
		st.Workers[identity] = ws
	}
}

// encode writes st, whose times it changes, for another process.
func (st *estateState) encode() (json.RawMessage, error) {
	st.Clock = clock.Now()
	st.times(st.Clock.Note, st.Clock.Note)
	return json.Marshal(st)
}

// decode reads what another process has written. With an error it is what could be read.
func decode(text json.RawMessage) (st estateState, err error) {
	err = json.Unmarshal(text, &st)
	st.times(st.Clock.Past, st.Clock.Moment)
	return st, err
}

// Yield stops deciding and returns copies of everything that another process
// needs to decide instead. From then on the set does nothing, until Resume or
// Abandon; a Stop or Kill that comes meanwhile is carried out by Resume. The files
// are the caller's to close. With an error the set goes on.
func (s *Set) Yield(ctx context.Context) (Estate, error) {
	e := Estate{Files: map[string]*os.File{}}
	var err error
	derr := s.do(ctx, func() {
		switch {
		case s.stopping, !s.stopAt.IsZero():
			err = ErrEnded
		case s.yielded:
			err = errors.New("workerset: given away already")
		default:
			if err = s.yield(&e); err != nil {
				s.resume(false)
			}
		}
	})
	if err = errors.Join(derr, err); err != nil {
		e.Close()
		return Estate{}, err
	}
	return e, nil
}

func (s *Set) yield(e *Estate) error {
	s.pausePost()
	s.haltHalls()
	// What was notified of and read, is acted on: nobody else will hear of it. Workers
	// that have ended go meanwhile.
	for _, g := range s.groups {
		for _, in := range slices.Clone(g.members) {
			s.hushed(in)
			if in.inbox != nil {
				in.inbox.Halt()
				s.quiet(in.noting)
			}
		}
	}
	s.yielded, s.yieldedAt = true, time.Now()
	st := estateState{Version: estateVersion, Groups: map[string]groupState{}, Workers: map[string]workerState{}}
	var post postState
	for _, g := range s.groups {
		if !g.dropped {
			st.Groups[g.Name] = g.handedOn()
		}
		for _, in := range g.members {
			if err := s.give(in, e, &post); err != nil {
				return fmt.Errorf("give worker %s away: %w", in.name(), err)
			}
			st.Workers[in.identity()] = in.printed(in.handedOn())
		}
	}
	st.Residue = post.small()
	if err := s.givePost(e, post); err != nil {
		return fmt.Errorf("give the messages away: %w", err)
	}
	var err error
	e.State, err = st.encode()
	return err
}

// Snapshot is what the workers can't know of themselves, for the process that is started when
// this one has died: see Left.Remember.
func (s *Set) Snapshot(ctx context.Context) (state json.RawMessage, err error) {
	derr := s.do(ctx, func() {
		if s.yielded {
			err = ErrGivenAway
			return
		}
		st := estateState{Version: estateVersion, Groups: map[string]groupState{}, Workers: map[string]workerState{}}
		for _, g := range s.groups {
			if !g.dropped {
				st.Groups[g.Name] = g.handedOn()
			}
			for _, in := range g.members {
				if in.proc != nil {
					st.Workers[in.identity()] = in.handedOn()
				}
			}
		}
		state, err = st.encode()
	})
	return state, errors.Join(derr, err)
}

func (g *group) handedOn() groupState {
	return groupState{
		Count: g.Count, Configured: g.configured, Restarts: g.restarts, Failures: g.failures, SlotRestarts: g.slotRestarts,
		Deaths: g.deaths, BudgetFull: g.budget.Full, Common: g.common,
	}
}

// handedOn is what was decided about a worker, and what it can't say.
func (in *incarnation) handedOn() workerState {
	ws := workerState{
		Began: in.began, Ready: in.readyAt, Cause: in.cause, Reason: in.reason, Blamed: in.blamedAt,
		Exiting: in.report.Phase == wire.PhaseExiting, ExitCode: in.report.ExitCode,
		Paid: in.paid, Degraded: in.state == lifecycle.Degraded,
		Dismissed: in.dismissed, Terminated: in.terminated, Killed: in.killed, Let: in.let, Drain: in.drainAt,
	}
	ws.Announced = in.announced.names()
	if ws.Degraded {
		ws.Nth = in.nth // forgiven, although it may not know of it yet
	}
	if in.program {
		ws.Program, ws.Greeted, ws.Asked, ws.State = true, in.greeted, in.asked, in.state.String()
		ws.DrainSignal, ws.Recipe = int(in.as.DrainSignal), in.recipe
		ws.Showed, ws.Online, ws.Handouts, ws.Flying, ws.Acks = in.showed, in.online, in.handouts.queue, in.handouts.flying, in.handouts.acks
		ws.Talks, ws.Calls, ws.LastCall, ws.Parcel = in.talks, in.calls, in.lastCall, in.handouts.parcel
		ws.Beats, ws.HungMS, ws.Text = in.beats, in.hungAfter.Milliseconds(), in.text
	}
	return ws
}

// printed adds what is known of unfinished lines, once the streams are halted.
func (in *incarnation) printed(ws workerState) workerState {
	for _, st := range in.streams {
		if len(st.rest) > 0 {
			if ws.Printed == nil {
				ws.Printed = map[string][]byte{}
			}
			ws.Printed[st.name] = st.rest
		}
	}
	return ws
}

// give puts one worker into the estate. One whose channel can't be read any more
// goes without: whoever gets it has to know that it is there, and to end it.
func (s *Set) give(in *incarnation, e *Estate, post *postState) error {
	add := func(c syscall.Conn, kind string) error {
		f, err := dupFile(c, kind+in.identity())
		if err == nil {
			e.Files[f.Name()] = f
		}
		return err
	}
	if err := add(in.proc.Pidfd(), kindPidfd); err != nil {
		return err
	}
	if in.crash != nil {
		if err := add(in.crash, kindCrash); err != nil {
			return err
		}
	}
	if in.inbox != nil {
		if err := add(in.inbox, kindNotify); err != nil {
			return err
		}
	}
	for _, stream := range in.streams {
		stream.halt()
		if err := add(stream.r, stream.name+":"); err != nil {
			return err
		}
	}
	if in.conn == nil {
		return nil
	}
	if in.residue == nil {
		in.rest = in.out.Halt()
		res, err := in.conn.Halt()
		if err != nil {
			return nil // it has been closed, or failed
		}
		in.residue = &res
		s.quiet(in.reader)
	}
	in.residue.Bytes = mend(in.residue.Bytes, in.torn)
	for i, f := range in.residue.Files { // of a line of which the end is missing
		if err := add(f, fmt.Sprintf("%s%d/", kindResidue, i)); err != nil {
			return err
		}
	}
	post.halves(in.identity(), in.residue.Bytes, in.rest)
	return add(in.conn, kindChannel)
}

// quiet waits for a reader that has been halted, so that Resume can start another.
// What it still has is acted on, or held.
func (s *Set) quiet(reader <-chan struct{}) {
	for {
		select {
		case ev := <-s.events:
			s.handle(ev)
		case <-reader:
			return
		}
	}
}

// Resume decides again after a Yield: whoever got the estate is dead. What
// happened meanwhile is made up for, and the workers are asked what they do.
func (s *Set) Resume() {
	_ = s.do(context.Background(), func() {
		if s.yielded {
			s.resume(true)
		}
	})
}

// resume goes on. In doubt, another process may have decided meanwhile.
func (s *Set) resume(doubt bool) {
	s.yielded = false
	for _, h := range s.halls {
		h.Unhalt()
	}
	s.hearHalls()
	s.post.endpoint.Unstop()
	if doubt {
		s.post.Doubt()
	}
	s.shift(time.Since(s.yieldedAt)) // nobody looked whether it was in time
	held := s.held
	s.held = nil
	for _, ev := range held { // what was read before the channels were halted
		s.handle(ev)
	}
	for _, g := range s.groups {
		for _, in := range g.members {
			if in.residue != nil {
				in.torn = tear(in.residue.Bytes)
				in.conn.Unhalt(*in.residue)
				in.residue = nil
				in.out.Unhalt(in.rest)
				if doubt && len(in.rest) > 0 {
					// Whether the other one has written that is not known.
					s.garbage(in, errors.New("a line to it may have been cut"))
				}
				in.rest = nil
				s.read(in)
			}
			if in.inbox != nil && in.dead == nil {
				in.inbox.Unhalt()
				s.readNotes(in)
			}
			for _, st := range in.streams {
				s.pass(in, st)
			}
			in.tell(s.post.Who(router.Peer(in.key)))
			in.told = toldUnknown
			s.post.Wake(router.Peer(in.key))
			if in.foreign() && doubt {
				s.callsLost(in)
				s.arrived(in) // if another parent has read that, it does not come again
			}
			s.hand(in)
		}
	}
	s.post.listen() // what was sent from here meanwhile
	if s.stopping {
		s.end(s.ending)
	}
}

// tear says which line, counted from 1, may be broken when reading goes on with b:
// the one that another parent may have begun to read.
func tear(b []byte) int {
	n := 1
	for line := range bytes.Lines(b) {
		if len(line) > 1 && line[len(line)-1] == '\n' { // a reader skips empty ones
			n++
		}
	}
	return n
}

// mend takes out the line of that number if it is here whole, and broken: nobody else
// would know that it may be.
func mend(b []byte, torn int) []byte {
	at := 0
	for line := range bytes.Lines(b) {
		end := at + len(line)
		if len(line) > 1 && line[len(line)-1] == '\n' {
			if torn--; torn == 0 && !json.Valid(line) {
				return slices.Concat(b[:at], b[end:])
			}
		}
		at = end
	}
	return b
}

// Abandon ends Run without a word to the workers: they belong to another process
// now.
func (s *Set) Abandon() {
	_ = s.do(context.Background(), func() { s.over = true })
}
