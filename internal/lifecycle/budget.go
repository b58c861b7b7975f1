package lifecycle

import "time"

// Budget is how often the workers of a group that served and then failed are
// replaced: Burst times at once, and from then on Burst times in every Per, evenly.
// The zero value is a full budget of 60 in 60 s, which is one a second. Without a
// clock of its own, it is told the time.
//
// A budget outlives its parent as JSON, or as no more than Full. Within a process
// the monotonic clock counts, if now has one. Where the clock is set back between
// two processes the budget is at worst used up; it never waits for the time that
// was set back.
type Budget struct {
	Burst int           `json:"burst,omitempty"` // below 1: 60; at most a million
	Per   time.Duration `json:"per,omitempty"`   // not above 0: a minute; at most a year
	// Full is when all that was taken will have been refilled: a bucket, told by
	// one time.
	Full time.Time `json:"full,omitzero"`
}

const (
	defaultBurst = 60
	defaultPer   = time.Minute
	// So that no product overflows.
	maxBurst = 1_000_000
	maxPer   = 365 * 24 * time.Hour
)

// Take spends one restart and reports whether there was one.
func (b *Budget) Take(now time.Time) bool {
	if b.Next(now).After(now) {
		return false
	}
	if b.Full.Before(now) {
		b.Full = now
	}
	step, _ := b.size()
	b.Full = b.Full.Add(step)
	return true
}

// Next is when a restart can be taken: now, or later.
func (b *Budget) Next(now time.Time) time.Time {
	step, all := b.size()
	// More than all cannot have been taken: the clock was set back, or it was
	// another budget's.
	if empty := now.Add(all); b.Full.After(empty) {
		b.Full = empty
	}
	if next := b.Full.Add(step - all); next.After(now) {
		return next
	}
	return now
}

// size is how long it takes to refill one restart, and all of them. It is rounded
// up, so that no window ever sees more than Burst and what Per allows.
func (b *Budget) size() (step, all time.Duration) {
	burst, per := min(b.Burst, maxBurst), min(b.Per, maxPer)
	if burst < 1 {
		burst = defaultBurst
	}
	if per <= 0 {
		per = defaultPer
	}
	step = (per-1)/time.Duration(burst) + 1
	return step, step * time.Duration(burst)
}
