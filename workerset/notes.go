package workerset

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// maxText bounds what is kept of a STATUS, in bytes.
const maxText = 512

// readNotes starts the goroutine that reads in's notifications, until the inbox is
// halted or closed. Whoever knows the address may write, and everybody does: see mayNotify.
func (s *Set) readNotes(in *incarnation) {
	done := make(chan struct{})
	in.noting = done
	s.wg.Go(func() {
		defer close(done)
		for {
			n, err := in.inbox.Read()
			switch {
			case errors.Is(err, sdnotify.ErrNoteTooLong):
				s.logOf(in).Debug("a notification is ignored", "from", n.Pid, "error", err)
				continue
			case err != nil && !errors.Is(err, sdnotify.ErrNoteLost):
				return
			}
			if !s.send(event{in: in, note: &n}) {
				n.Done()
				return
			}
		}
	})
}

// queuedNotes takes in what a process that has ended had notified of: its end comes
// after that.
func (s *Set) queuedNotes(in *incarnation) {
	if in.inbox == nil {
		return
	}
	in.inbox.Halt()
	s.quiet(in.noting)
	s.takeNotes(in)
}

// afterNotes calls fn when all is taken in that a worker has notified of until now: what
// it says elsewhere, which fn is about, came later. Whatever else happens meanwhile
// comes after fn, among it more of the same worker.
func (s *Set) afterNotes(in *incarnation, fn func()) {
	if in.inbox == nil || in.dead != nil {
		fn()
		return
	}
	var others []event
	in.inbox.Halt()
	for halted := false; !halted; {
		select {
		case ev := <-s.events:
			if ev.in == in && ev.note != nil {
				s.handle(ev)
			} else {
				others = append(others, ev)
			}
		case <-in.noting:
			halted = true
		}
	}
	s.takeNotes(in)
	in.inbox.Unhalt()
	s.readNotes(in)
	fn()
	for _, ev := range others {
		s.handle(ev)
	}
}

// takeNotes takes in what waits in an inbox that has been halted.
func (s *Set) takeNotes(in *incarnation) {
	in.inbox.Each(func(n sdnotify.Note, err error) {
		if !errors.Is(err, sdnotify.ErrNoteTooLong) {
			s.note(in, &n)
		}
	})
}

// note acts on what a worker notifies of (sd_notify(3)). That it was acted on
// answers a BARRIER.
func (s *Set) note(in *incarnation, n *sdnotify.Note) {
	defer n.Done()
	if !s.mayNotify(in, n) {
		if !in.strangers {
			in.strangers = true
			s.logOf(in).Warn("notifications of another user are ignored", "from", n.Pid, "user", n.UID)
		}
		return
	}
	if v, ok := n.Get("STATUS"); ok {
		in.text = strings.ToValidUTF8(v[:min(len(v), maxText)], "")
	}
	if v, ok := n.Get("ERRNO"); ok {
		in.errno = v[:min(len(v), 16)]
	}
	if d, ok := micros(n, "WATCHDOG_USEC"); ok && d > 0 {
		in.hungAfter = d
	}
	if d, ok := micros(n, "EXTEND_TIMEOUT_USEC"); ok && in.state == lifecycle.Starting {
		if later := time.Now().Add(d); later.After(in.deadline) {
			in.deadline = later
		}
	}
	switch v, _ := n.Get("WATCHDOG"); v {
	case "1":
		s.alive(in)
	case "trigger":
		s.blame(in, wire.CauseHung, "it says so itself (WATCHDOG=trigger)")
		s.apply(in, lifecycle.Hung)
	}
	if n.Says("READY", "1") {
		in.notified = true
		s.couldServe(in)
	}
	if n.Says("STOPPING", "1") && !in.dismissed {
		s.blame(in, wire.CauseRetire, "it says that it stops")
		s.apply(in, lifecycle.Leaving)
	}
}

// mayNotify reports whether somebody may speak for a worker: its user, this process's, root,
// and whoever it has started (wrappers such as npm), as long as it lives.
func (s *Set) mayNotify(in *incarnation, n *sdnotify.Note) bool {
	return n.UID == 0 || n.UID == os.Geteuid() || in.as.User != nil && n.UID == int(in.as.User.UID) ||
		n.Pid == in.pid() || launch.Descends(n.Pid, in.pid())
}

func micros(n *sdnotify.Note, name string) (time.Duration, bool) {
	v, ok := n.Get(name)
	us, err := strconv.ParseInt(v, 10, 64)
	// At most what a time.Duration holds; nobody means more than a day.
	return time.Duration(min(us, int64(24*time.Hour/time.Microsecond))) * time.Microsecond, ok && err == nil && us >= 0
}

// alive notes that a worker has said that it lives; from the first time on it has
// to go on saying so.
func (s *Set) alive(in *incarnation) {
	in.beats, in.beat = true, time.Now()
}

// hungAt is when a worker counts as hung if nothing is heard of it until then.
func (in *incarnation) hungAt() time.Time {
	if !in.beats || in.hungAfter <= 0 || in.state == lifecycle.Terminating || in.state == lifecycle.Killing {
		return time.Time{}
	}
	return in.beat.Add(in.hungAfter)
}
