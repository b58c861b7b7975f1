package handover

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/workerset"
)

// This file decides what a supervisor is told of the service beside which process it is
// and that it is ready, which is the upgrader's to say: what systemctl status shows, that
// something takes its time, and that the service lives (sd_notify(3)).

// view is what is seen of the service at one moment.
type view struct {
	answers bool // the set's loop; without it the rest is not known
	decides bool // this process
	gives   bool // it has yielded, and may not be the main one any more
	workerset.Status
	upgrading bool
	last      *control.Outcome // upgrade
}

const (
	// more is how long a supervisor is asked to wait each time. It is asked four times
	// as often, since it may be late, or this process.
	more = 10 * time.Second
	// pace is how long nothing new is said after something was: a roll of many workers
	// is one thing and not a hundred.
	pace = 100 * time.Millisecond
)

// conversation is what the supervisor was told before.
type conversation struct {
	watchdog time.Duration // within which it wants a sign of life, or 0
	hung     time.Duration // the same of an anchor, which wants to know of this process alone

	status   string
	stopping bool
	extended time.Time
	lived    time.Time
	answered time.Time
}

// say decides what to send in one datagram, if anything, and after what time to look
// again if nothing happens.
func (c *conversation) say(v view, now time.Time) (notes []string, again time.Duration) {
	again = time.Hour
	soon := func(last time.Time, every time.Duration) (due bool) {
		left := last.Add(every).Sub(now)
		if last.IsZero() || left <= 0 {
			due, left = true, every
		}
		again = min(again, left)
		return due
	}
	if c.watchdog > 0 && soon(c.lived, c.watchdog/4) && c.lives(v, now) {
		notes = append(notes, "WATCHDOG=1")
		c.lived = now
	}
	if c.hung > 0 && soon(c.answered, c.hung/4) && v.answers {
		notes = append(notes, anchor.Lives)
		c.answered = now
	}
	if v.Stopping && !v.gives && !c.stopping {
		notes = append(notes, "STOPPING=1")
		c.stopping = true
		c.extended = time.Time{} // another time limit runs now
	}
	if !v.answers || v.gives {
		return notes, min(again, more/4)
	}
	// Each of these comes to an end by a time limit of its own, so that more time is
	// not for ever.
	if !v.decides || v.upgrading || v.rolls() || v.Stopping {
		if soon(c.extended, more/4) {
			notes = append(notes, sdnotify.Extend(more))
			c.extended = now
		}
	} else {
		c.extended = time.Time{}
	}
	if text := v.text(); text != c.status {
		notes = append(notes, sdnotify.Status(text))
		c.status = text
	}
	return notes, again
}

// lives reports whether the service does what it is for: the parent's loop answers, and
// of each group that has sockets there is a worker that accepts and, if it can be asked,
// has answered of late.
func (c *conversation) lives(v view, now time.Time) bool {
	if !v.answers || !v.decides {
		return false
	}
	if v.Stopping {
		return true
	}
	someHave := slices.ContainsFunc(v.Groups, func(g workerset.GroupStatus) bool { return len(g.Sockets) > 0 })
	for _, g := range v.Groups {
		if g.Count == 0 || someHave && len(g.Sockets) == 0 {
			continue
		}
		if !slices.ContainsFunc(g.Workers, func(w workerset.Worker) bool {
			return w.Accepts() && (w.Heard.IsZero() || now.Sub(w.Heard) < c.watchdog)
		}) {
			return false
		}
	}
	return true
}

// rolls reports whether this generation's workers have not replaced the older ones yet.
func (v view) rolls() bool { return v.last != nil && v.last.Result == control.Rolling }

// text is for people, one line.
func (v view) text() string {
	older := 0
	var groups []string
	left := 0
	for _, g := range v.Groups {
		serving := 0
		for _, w := range g.Workers {
			switch {
			case w.State == "exited":
				continue
			case w.Accepts() && w.Generation == v.Generation:
				serving++
			case w.Generation != v.Generation:
				older++
			}
			left++
		}
		groups = append(groups, fmt.Sprintf("%d of %d workers of %s serve", serving, g.Count, g.Name))
		if len(v.Groups) == 1 {
			groups[0] = fmt.Sprintf("%d of %d workers serve", serving, g.Count)
		}
	}
	switch {
	case v.Stopping && left == 0:
		return "stops"
	case v.Stopping:
		return fmt.Sprintf("stops: workers left: %d", left)
	case !v.decides:
		return "starts"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "generation %d: %s", v.Generation, strings.Join(groups, ", "))
	if older > 0 {
		fmt.Fprintf(&b, ", %d of older generations are left", older)
	}
	switch l := v.last; {
	case v.upgrading:
		fmt.Fprintf(&b, "; upgrade to generation %d under way", v.Generation+1)
	case l == nil || l.Result == control.Rolling:
	case l.Result == control.Probation:
		fmt.Fprintf(&b, "; on probation until %s", l.Until.Format(time.DateTime))
	case l.Result == control.Done:
		fmt.Fprintf(&b, "; upgraded %s", l.Time.Format(time.DateTime))
	default:
		fmt.Fprintf(&b, "; upgrade to generation %d %s %s: %s", l.Generation, l.Result, l.Time.Format(time.DateTime), l.Reason)
	}
	return b.String()
}
