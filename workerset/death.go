package workerset

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/cgroup"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file is about how workers end, and why.

// died is the end of an incarnation.
func (s *Set) died(in *incarnation) {
	status := in.exitStatus()
	in.exit = status.String()
	wasReady := !in.readyAt.IsZero()
	s.lastWords(in)
	if s.unexpected(in, status) {
		cause, reason := wire.CauseExit, status.String()
		switch {
		case in.dump != "":
			cause, reason = wire.CauseCrash, headline(in.dump)
		case in.foreign() && wasReady && in.went(status):
			cause, reason = wire.CauseRetire, "asked to by somebody else"
		case !wasReady:
			cause = wire.CauseStartExit
		case status.Signal != 0:
			cause = wire.CauseSignal
		}
		if s.starved(in, status) {
			reason += " for want of memory (out of memory in its control group)"
		}
		if in.errno != "" {
			reason += ", errno " + in.errno
		}
		if last := in.output.String(); last != "" && !wasReady {
			reason += "; its last output:\n" + last
		}
		s.blame(in, cause, reason)
	}
	s.count(in)
	s.apply(in, lifecycle.Died)
	s.logExit(in)
	s.remember(in)
	s.announceExit(in)
	if in.missed() {
		s.restarted(in)
		if wasReady {
			s.settleSlot(in, status)
		}
	}
	s.remove(in)
	fault.Point(fault.RollExited)
}

// starved reports whether it was the kernel that has killed a worker, for want of memory.
// The kernel says only how many processes it has killed; so one that was killed
// otherwise, after something that a worker had started starved, would be taken for
// another such.
func (s *Set) starved(in *incarnation, status launch.Status) bool {
	if in.killed || status.Known && status.Signal != int(syscall.SIGKILL) {
		return false
	}
	n, _ := cgroup.OOMKills()
	if n <= s.oomKills {
		return false
	}
	s.oomKills++
	return true
}

// Death is a worker that has ended because it failed, or because it had reached a limit
// (Recycle; its Cause is "recycle").
type Death struct {
	Time       time.Time `json:"time"`
	Slot       int       `json:"slot"`
	ID         int       `json:"id"`
	Generation int       `json:"generation"`
	Pid        int       `json:"pid"`
	Cause      string    `json:"cause"`
	Reason     string    `json:"reason,omitempty"` // its first line
}

// keptDeaths is how many a group remembers: of failures, and of workers that had reached a
// limit, which are not to hide those.
const keptDeaths = 8

// remember keeps such an end for whoever asks later.
func (s *Set) remember(in *incarnation) {
	if !in.cause.Failure() && in.cause != wire.CauseRecycle {
		return
	}
	reason, _, _ := strings.Cut(in.reason, "\n")
	in.group.record(Death{
		Time: time.Now(), Slot: in.slot, ID: in.id, Generation: in.generation, Pid: in.pid(),
		Cause: string(in.cause), Reason: strings.ToValidUTF8(reason[:min(len(reason), 1<<10)], "?"),
	})
}

// record adds to the last deaths.
func (g *group) record(list ...Death) {
	g.deaths = lastDeaths(append(slices.Clone(g.deaths), list...))
}

// lastDeaths is the last ones of each kind.
func lastDeaths(deaths []Death) (last []Death) {
	kept := map[bool]int{}
	for _, d := range slices.Backward(deaths) {
		if recycled := d.Cause == string(wire.CauseRecycle); kept[recycled] < keptDeaths {
			kept[recycled]++
			last = append(last, d)
		}
	}
	slices.Reverse(last)
	return last
}

// restarted counts a worker that has to be replaced, and gives up when there were too
// many, if that is wanted.
func (s *Set) restarted(in *incarnation) {
	g := in.group
	g.restarts++
	g.slotRestarts[in.slot]++
	if g.MaxRestarts == 0 || s.stopping {
		return
	}
	now := time.Now()
	g.recent = slices.DeleteFunc(append(g.recent, now), func(t time.Time) bool { return now.Sub(t) > g.RestartWindow })
	if len(g.recent) > g.MaxRestarts && (s.cfg.Forbear == nil || !s.cfg.Forbear()) {
		s.fatal = fmt.Errorf("%w: %d of group %q within %v, the last one, %s: %s: %s",
			ErrTooManyRestarts, len(g.recent), g.Name, g.RestartWindow, in.name(), in.cause, in.reason)
		s.log.Error("giving up", "error", s.fatal)
		s.end(lifecycle.Stop)
	}
}

// lastWords takes in what a process that has ended left behind.
func (s *Set) lastWords(in *incarnation) {
	for _, st := range in.streams {
		if st.finish() {
			st.r.Close()
		} else {
			s.linger(in, st)
		}
	}
	in.streams = nil
	in.dump = readCrash(in.crash)
}

// exitStatus is how the process ended. Of one that is nobody's child here, its
// last word tells.
func (in *incarnation) exitStatus() launch.Status {
	if !in.dead.Known && in.report.Phase == wire.PhaseExiting {
		return launch.Status{Known: true, Code: in.report.ExitCode}
	}
	return *in.dead
}

// unexpected reports whether an end has to be explained by the exit status.
func (s *Set) unexpected(in *incarnation, status launch.Status) bool {
	if in.cause == "" && !in.dismissed {
		return true
	}
	// It was let go, or asked for it; but something else has ended it. A status that
	// nobody knows says nothing: who had to reap it was late, or its last word has
	// been read by another parent.
	return !in.cause.Failure() && !in.terminated && !in.killed && status.Known && !status.Success() && !(in.asked && in.went(status))
}

// went reports whether a foreign worker has ended as one does that is asked to
// drain and does not catch the signal.
func (in *incarnation) went(status launch.Status) bool {
	sig := int(in.as.DrainSignal)
	return status.Signal == sig || status.Code == 128+sig
}

// count adds an incarnation to the report.
func (s *Set) count(in *incarnation) {
	if !s.stopping {
		return
	}
	if in.terminated {
		s.report.Terminated++
	}
	if in.killed {
		s.report.Killed++
	}
	if !in.terminated && !in.killed {
		s.report.Exited++
	}
	s.report.Cut += max(0, in.report.Cut)
}

// settleSlot decides when a slot may have its next worker after one that was
// ready: at once after one that has served, later and later otherwise.
func (s *Set) settleSlot(in *incarnation, status launch.Status) {
	up := in.blamedAt.Sub(in.readyAt)
	// What somebody else asked for says nothing about the worker.
	outside := in.cause == wire.CauseRetire || status.Signal == int(syscall.SIGKILL)
	switch {
	case up >= resetAfter:
		in.group.slot(in.slot).failures = 0
	case up < youngFor && !in.hasServed() && !outside:
		s.setBack(in)
		return
	}
	if in.cause.Failure() {
		s.charge(in)
	}
}

func (s *Set) logExit(in *incarnation) {
	level := slog.LevelInfo
	log := s.logOf(in).With("status", in.exit)
	if in.cause != "" {
		log = log.With("cause", string(in.cause), "reason", in.reason)
	}
	if in.report.Cut > 0 {
		log = log.With("cut", in.report.Cut)
	}
	switch in.cause {
	case wire.CauseCrash, wire.CauseSignal, wire.CauseExit, wire.CauseHung:
		// It could not say anything, so that nothing is known of what it had.
		log = log.With("drained", false)
	}
	if in.cause.Failure() {
		level = slog.LevelError
	}
	log.Log(context.Background(), level, "worker exited")
}
