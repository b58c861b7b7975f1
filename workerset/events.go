package workerset

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/home"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// This file takes in what workers say and how they end.

const (
	// settleTime is how long the loop waits for the end of a process after the
	// end of its channel. It comes within microseconds, unless the process lives
	// on or the machine is busy.
	settleTime = time.Second
	// resetAfter is how long a worker has to have been up for its slot's failures
	// to be forgotten.
	resetAfter = 30 * time.Second
	// youngFor is how long after it was ready a worker that fails without having
	// served anybody counts as one that could not start.
	youngFor = time.Second
	// maxReason bounds what is kept of a worker's words, in bytes.
	maxReason = 64 << 10
)

// event is what the loop gets from an incarnation's goroutines.
type event struct {
	in      *incarnation
	arrival *home.Arrival  // a worker without a parent has reported; there is no in then
	line    []byte         // a message
	files   []*os.File     // that came with it
	counted bool           // in incarnation.torn
	lost    error          // the channel ended, or carried garbage
	note    *sdnotify.Note // a notification
	probed  bool           // it was asked over HTTP; lost says why that is no answer
	room    bool           // its channel takes more
	died    bool           // the process has ended
	closed  bool           // a stream that it had left open has ended
	status  launch.Status  // with died
}

// handle takes in one event.
func (s *Set) handle(ev event) {
	in := ev.in
	if in == nil {
		if ev.lost != nil {
			s.refused(s.log, ev.lost.Error())
		} else {
			s.arrive(*ev.arrival)
		}
		return
	}
	if ev.line != nil && !ev.counted && in.torn > 0 {
		ev.counted = true
		if in.torn--; in.torn == 0 && ev.lost == nil && !json.Valid(ev.line) {
			s.logOf(in).Debug("half a line that another parent began to read")
			closeFiles(ev.files)
			s.unread(in)
			return
		}
	}
	switch {
	case s.yielded:
		s.hold(ev)
	case ev.closed:
		s.streamEnded(in)
	case in.state == lifecycle.Exited:
		if ev.note != nil {
			ev.note.Done()
		}
		closeFiles(ev.files)
	case ev.room:
		s.quick = !in.foreign() // to whom something may be late
		s.post.Wake(router.Peer(in.key))
		s.hand(in)
	case ev.note != nil:
		s.note(in, ev.note)
	case ev.probed && ev.lost != nil:
		in.unready = ev.lost
	case ev.probed:
		in.probed = true
		s.couldServe(in)
	case ev.died:
		s.queuedNotes(in)
		in.dead = &ev.status
		s.half(in)
	case in.deaf: // on its way when the channel was given up
		closeFiles(ev.files)
	case ev.lost == nil:
		s.message(in, ev.line, ev.files)
	case in.foreign() && channelEnded(ev.lost) && in.dead == nil:
		s.deafened(in) // a program that has no use for it may close it
		s.disconnected(in)
	case channelEnded(ev.lost):
		in.heard = true
		s.deafened(in)
		s.half(in)
	default:
		s.garbage(in, ev.lost)
	}
}

// unread: something that in has said could not be read. The half of a line may have stood
// before any other one, also before the answer to what it was asked since.
func (s *Set) unread(in *incarnation) {
	if s.yielded {
		return // whoever decides next asks
	}
	in.tell(s.post.Who(router.Peer(in.key)))
	if in.foreign() {
		s.arrived(in) // if that was it, it does not come again
	}
}

// hold keeps an event until this set decides again, if it does. Messages are no
// matter of decisions: whoever decides has to have them.
func (s *Set) hold(ev event) {
	if ev.line != nil && !ev.in.deaf {
		if cmd, err := wire.Cmd(ev.line); err == nil && isMail(cmd) {
			if err := s.mail(ev.in, cmd, ev.line, ev.files); err == nil {
				return
			} else {
				ev = event{in: ev.in, lost: err}
			}
		}
	}
	s.held = append(s.held, ev)
}

// channelEnded tells the end of a channel from garbage on it. A line that the end
// cuts is no message; it is what a process leaves that is killed as it writes.
func channelEnded(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)
}

// half is one half of an incarnation's end: its channel's or its process's. Only
// with the other half is it known what happened, and why.
func (s *Set) half(in *incarnation) {
	switch {
	case in.dead != nil && in.deaf:
		s.died(in)
		return
	case in.dead != nil:
		// Its last word may still be in the channel. What it started may hold the
		// channel open, so the end is put behind what is there.
		in.endChannel()
	}
	in.settle = time.Now().Add(settleTime)
	if in.deaf && s.surelyServed(in) && !in.foreign() {
		// Whatever the reason will turn out to be, its slot gets another now.
		s.charge(in)
		drain := in.drainAt
		s.apply(in, lifecycle.Lost)
		in.drainAt = drain // it is believed to be dying
	}
}

// surelyServed: however a worker ends, it has not come to nothing.
func (s *Set) surelyServed(in *incarnation) bool {
	return in.state.Accepts() && !in.readyAt.IsZero() && (in.hasServed() || time.Since(in.readyAt) >= youngFor)
}

// halfEnded: the other half does not come.
func (s *Set) halfEnded(in *incarnation) {
	if in.dead != nil {
		s.died(in)
		return
	}
	if in.report.Phase != wire.PhaseExiting && !in.dismissed {
		s.blame(in, wire.CauseChannel, "it closed its channel and goes on running")
	}
	s.apply(in, lifecycle.Lost)
}

// garbage gives a channel up.
func (s *Set) garbage(in *incarnation, err error) {
	if in.foreign() {
		// A descriptor that it does not know, and has written to by mistake.
		s.logOf(in).Warn("program wrote what is no message to its channel, which is closed", "error", err)
		s.deafened(in)
		in.conn.Close()
		return
	}
	s.logOf(in).Error("worker sent garbage, its channel is closed", "error", err)
	s.blame(in, wire.CauseChannel, err.Error())
	s.deafened(in)
	s.apply(in, lifecycle.Lost)
}

// message takes in one line of a worker.
func (s *Set) message(in *incarnation, line []byte, files []*os.File) {
	cmd, err := wire.Cmd(line)
	var bad *wire.BadMessageError
	if errors.As(err, &bad) && bad.JSON {
		err = nil // valid JSON that is no object: a message of the program's own
	}
	var st wire.State
	says := err == nil && cmd == wire.CmdState
	if says {
		if err = json.Unmarshal(line, &st); err != nil {
			err = fmt.Errorf("%s: %w", wire.CmdState, err)
		}
	}
	if err == nil && isMail(cmd) {
		s.quick = true
		in.greeted = true
		if err = s.mail(in, cmd, line, files); err == nil {
			return
		}
		files = nil
	}
	if err == nil && len(files) > 0 && !in.foreign() {
		err = fmt.Errorf("%d descriptors with a %s", len(files), cmd)
	}
	switch {
	case err != nil:
		closeFiles(files)
		s.garbage(in, err)
	case says:
		if in.foreign() && in.probing != nil { // it is to be asked in another way now
			in.probing()
			in.probing = nil
		}
		in.greeted = true
		s.announce(in, Event{Kind: EventOnline})
		s.observe(in, st)
	case string(line) == `"ready"`:
		in.said = true
		s.couldServe(in)
	case in.foreign():
		s.hear(in, cmd, line, files)
	default:
		closeFiles(files)
	}
}

// observe derives the events from what a worker says of itself. It may have left
// out steps: what it says is its state, not what happened.
func (s *Set) observe(in *incarnation, st wire.State) {
	if in.report.Phase == wire.PhaseExiting {
		return // that was its last word
	}
	st.Reason = st.Reason[:min(len(st.Reason), maxReason)]
	in.report = st
	in.words++
	if st.BeatMS > 0 {
		s.alive(in)
	}
	switch {
	case st.Cause == "":
	case in.dismissed && !st.Cause.Failure(): // it repeats what it was told
	case st.Nth > 0 && st.Nth == in.nth: // and has not heard the answer yet
	default:
		in.nth = st.Nth
		s.failed(in, st)
	}
	switch st.Phase {
	case wire.PhaseStarting:
		if in.state.Serves() {
			in.readyAt = time.Time{} // taken over, it was believed to serve
		}
		s.apply(in, lifecycle.Spawned)
	case wire.PhaseReady, wire.PhaseServing:
		in.said = true
		switch {
		case in.state == lifecycle.Starting:
			s.couldServe(in)
		case st.Phase == wire.PhaseReady: // taken over, it waits to be told to accept
			s.apply(in, lifecycle.Ready)
		}
	case wire.PhaseDraining, wire.PhaseExiting:
		if in.adopted && in.cause == "" {
			in.dismissed = true // by the parent before this one
		}
		s.apply(in, lifecycle.Leaving)
	case wire.PhaseDrained:
		if in.adopted && in.cause == "" {
			in.dismissed = true
		}
		s.apply(in, lifecycle.Drained)
	}
}

// blame notes why a worker ends that nobody here wanted to end. The first cause
// counts, except that a failure goes before what is none.
func (s *Set) blame(in *incarnation, cause wire.Cause, reason string) {
	first := in.cause == ""
	if !first && (in.cause.Failure() || !cause.Failure()) {
		return
	}
	in.cause, in.reason = cause, reason
	if cause.Failure() {
		in.group.failures++
		s.announceFault(in, cause, reason)
	}
	if first {
		in.blamedAt = time.Now()
		// One that was never ready has come to nothing. Its slot waits from now
		// on, not from the end of its process.
		if in.readyAt.IsZero() && !in.dismissed && cause != wire.CauseRetire {
			s.setBack(in)
		}
	}
}

func (s *Set) startTimedOut(in *incarnation) {
	reason := fmt.Sprintf("not ready after %v", in.as.StartTimeout)
	if in.unready != nil {
		reason += ": " + in.unready.Error()
	}
	if last := in.output.String(); last != "" {
		reason += "; its last output:\n" + last
	}
	s.blame(in, wire.CauseStartTimeout, reason)
}
