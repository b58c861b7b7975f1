package workerset

import (
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/lifecycle"
)

// readyAfter is when a worker is ready by having lived so long; zero: never.
func (in *incarnation) readyAfter() time.Time {
	switch r := in.as.Ready; {
	case in.state != lifecycle.Starting, !in.said && !in.foreign():
	case r.By == ReadyDelay:
		return in.began.Add(r.After)
	case r.By == ReadyDefault && in.foreign() && !in.as.nodeTakes():
		return in.began.Add(AliveFor)
	}
	return time.Time{}
}

// isReady reports whether what is asked of a worker has come true. One that speaks
// on the channel has to have said so there, too.
func (in *incarnation) isReady() bool {
	if !in.said && !in.foreign() {
		return false
	}
	late := func() bool { t := in.readyAfter(); return !t.IsZero() && !time.Now().Before(t) }
	switch in.as.Ready.By {
	case ReadyNotify:
		return in.notified
	case ReadyChannel:
		return in.said
	case ReadyHTTP:
		return in.probed
	case ReadyDelay:
		return late()
	}
	return in.said || in.notified || in.offered || late()
}

// couldServe makes a worker ready once it is.
func (s *Set) couldServe(in *incarnation) {
	if in.state != lifecycle.Starting {
		return
	}
	if in.as.Ready.By == ReadyHTTP && (in.said || in.foreign()) {
		s.probe(in)
	}
	if !in.isReady() {
		return
	}
	in.readyAt = time.Now()
	s.announceReady(in)
	fault.Point(fault.RollReady)
	s.apply(in, lifecycle.Ready)
	if s.committed {
		s.apply(in, lifecycle.Commit)
	}
}
