// Package clock carries times to another process of the same machine, whose time of day may be
// set meanwhile.
//
// Within a process package time measures by a clock that nobody sets, and has its reading in a
// time.Time. In a text there is only the time of day, and how long ago that was is wrong by as
// much as the clock has been set since. But all processes of a machine share the other clock,
// too. So who writes times writes with them what both clocks show (Now, Note), and who reads
// them finds out when it was (Moment, Past), to the nanosecond, however often it is handed on.
//
// Times that are only shown to people need none of this: they are those that the clock showed.
package clock

import (
	"math"
	"time"
)

// Reading is what both clocks show at one moment. It is versioned by adding fields only. The
// zero value is that of a text whose writer did not say: its times are by the time of day.
type Reading struct {
	Time time.Time `json:"time,omitzero"` // of day
	Up   int64     `json:"up,omitempty"`  // by the clock that nobody sets, in ns
}

// origin has in its Time what package time measures by, too: so one clock leads to the other.
var origin = func() (closest Reading) {
	least := int64(math.MaxInt64)
	for range 5 { // this process may lose the CPU between two of them
		before, now := monotonic(), time.Now()
		if took := monotonic() - before; took < least {
			least, closest = took, Reading{Time: now, Up: before + took/2}
		}
	}
	return closest
}()

// Now reads the clocks.
func Now() Reading {
	now := time.Now()
	return Reading{Time: now.Round(0), Up: Up(now)}
}

// Up is t by the clock that all processes share, in ns: the same number in each of them, if t
// has come there by a Reading.
func Up(t time.Time) int64 { return origin.Up + int64(t.Sub(origin.Time)) }

// Note is t as it is to be written with r. Zero stays zero.
func (r Reading) Note(t time.Time) time.Time {
	if t.IsZero() || r.Time.IsZero() {
		return t
	}
	return r.Time.Add(time.Duration(Up(t) - r.Up))
}

// Moment is what was written with r as t, to be measured from in this process. Zero stays zero.
func (r Reading) Moment(t time.Time) time.Time {
	if t.IsZero() || r.Time.IsZero() {
		return t
	}
	return origin.Time.Add(time.Duration(r.Up-origin.Up) + t.Sub(r.Time))
}

// Past is the Moment of what has happened, and so is not in the future.
func (r Reading) Past(t time.Time) time.Time {
	t = r.Moment(t)
	if now := time.Now(); t.After(now) {
		return now
	}
	return t
}
