package workerset

import (
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// This file is about workers that end while they have no parent.

// mournEvery is how often it is looked whether those have ended that have not reported.
const mournEvery = time.Second

// mourn notes the end of workers that a dead parent has had, and this one has never seen.
func (s *Set) mourn() {
	s.mournAt = time.Time{}
	for identity, ws := range s.past.Workers {
		name, n, err := parseIdentity(identity)
		if err == nil && s.memberOf(n[3]) == nil {
			// Another process may have its pid by now; then nobody knows.
			if unix.Kill(n[3], 0) != unix.ESRCH {
				s.mournAt = time.Now().Add(mournEvery)
				continue
			}
			s.missed(name, n, identity, ws)
		}
		delete(s.past.Workers, identity)
	}
}

// missed tells of such an end as of any other.
func (s *Set) missed(name string, n [4]int, identity string, ws workerState) {
	status := launch.Status{}
	if launch.Elsewhere != nil {
		if got, ok := launch.Elsewhere(n[3]); ok {
			status = launch.StatusOf(got)
		}
	}
	in := &incarnation{
		group: s.groupNamed(name), slot: n[0], id: n[1], generation: n[2], adopted: true, state: lifecycle.Exited,
		since: time.Now(), began: ws.Began, cause: ws.Cause, reason: ws.Reason, dismissed: ws.Dismissed, let: ws.Let,
		drainAt: ws.Drain, terminated: ws.Terminated, killed: ws.Killed, exit: status.String(),
	}
	if in.cause == "" && !in.dismissed {
		in.cause, in.reason = wire.CauseExit, "ended while it had no parent: "+status.String()
		if status.Signal != 0 {
			in.cause = wire.CauseSignal
		}
		in.group.failures++
		in.group.restarts++
		in.group.slotRestarts[in.slot]++
	}
	w := in.status()
	w.Pid = n[3]
	s.logIdentity(identity).Error("worker has ended while it had no parent", "status", in.exit)
	in.group.record(Death{
		Time: time.Now(), Slot: w.Slot, ID: w.ID, Generation: w.Generation, Pid: w.Pid, Cause: w.Cause, Reason: w.Reason,
	})
	if s.cfg.Observe != nil {
		s.cfg.Observe(Change{Worker: w, From: lifecycle.Serving.String(), Restart: in.missed()})
	}
}
