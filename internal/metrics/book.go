package metrics

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/workerset"
)

// book adds up what happens to a service over the lives of its workers and its parents.
// It does no I/O and is told the time. It travels as JSON, versioned by adding fields only.
//
// A worker's numbers grow as long as it lives, whoever its parent is. So a total is those
// of the dead, and the last known ones of the living, which travel too: the next parent
// learns a worker's numbers only when it has asked.
type book struct {
	Version  int               `json:"v"`
	Clock    clock.Reading     `json:"clock,omitzero"` // what its times are written with
	Groups   map[string]group  `json:"groups,omitempty"`
	Workers  map[string]worker `json:"workers,omitempty"` // that live, by identity
	Upgrades map[string]uint64 `json:"upgrades,omitempty"`
	Upgrade  histogram         `json:"upgradeSeconds,omitzero"`
	// Rolling is when the upgrade began that has led here, until it is known what has
	// become of it, and Served whether its workers have replaced all others.
	Rolling time.Time `json:"rolling,omitzero"`
	Served  bool      `json:"served,omitempty"`

	tried time.Time // when the upgrade began that is under way
	undo  bool      // which undoes the one that has led here
}

// group is what a group's workers have come to.
type group struct {
	Dead     counts            `json:"dead,omitzero"`
	Restarts map[string]uint64 `json:"restarts,omitempty"` // by cause
	Failures uint64            `json:"failures,omitempty"`
	// Seen is the number of failures that the set has named last, which begins anew when
	// the set does.
	Seen  uint64    `json:"seen,omitempty"`
	Start histogram `json:"startSeconds,omitzero"`
	Drain histogram `json:"drainSeconds,omitzero"`
}

// worker is one that lives.
type worker struct {
	Group    string    `json:"group"`
	Counts   counts    `json:"counts,omitzero"`
	Draining time.Time `json:"draining,omitzero"` // since when

	inherited bool // from the parent before, and not known to live
}

// counts are of connections.
type counts struct {
	Accepted uint64 `json:"accepted,omitempty"`
	MovedIn  uint64 `json:"movedIn,omitempty"`
	MovedOut uint64 `json:"movedOut,omitempty"`
	Cut      uint64 `json:"cut,omitempty"`
}

// mostOfOne bounds what one worker can add to a total: what it says is its own word, and
// totals must not overflow. It would take more than 5 years at 100,000 a second.
const mostOfOne = 1 << 44

// countsOf are the numbers that a worker has said.
func countsOf(w workerset.Worker) counts {
	n := func(n int) uint64 { return min(uint64(max(0, n)), mostOfOne) }
	return counts{n(w.Served), n(w.MovedIn), n(w.MovedOut), n(w.Cut)}
}

// max never forgets what was known.
func (c counts) max(o counts) counts {
	return counts{max(c.Accepted, o.Accepted), max(c.MovedIn, o.MovedIn), max(c.MovedOut, o.MovedOut), max(c.Cut, o.Cut)}
}

func (c counts) plus(o counts) counts {
	return counts{c.Accepted + o.Accepted, c.MovedIn + o.MovedIn, c.MovedOut + o.MovedOut, c.Cut + o.Cut}
}

func newBook() book {
	return book{
		Version: 1, Groups: map[string]group{}, Workers: map[string]worker{}, Upgrades: map[string]uint64{},
		Upgrade: newHistogram(upgradeBounds),
	}
}

// group is the one of that name, to be put back.
func (b *book) group(name string) group {
	g, ok := b.Groups[name]
	if !ok {
		g = group{Restarts: map[string]uint64{}, Start: newHistogram(startBounds), Drain: newHistogram(drainBounds)}
	}
	return g
}

// identity tells one worker from all others that the service has had.
func identity(w workerset.Worker) string {
	return fmt.Sprintf("%s/%d/%d/%d", w.Group, w.Slot, w.ID, w.Generation)
}

// Names of states, as workers have them.
var (
	starting = lifecycle.Starting.String()
	standby  = lifecycle.Standby.String()
	draining = lifecycle.Draining.String()
	exited   = lifecycle.Exited.String()
)

// observe takes in a change of a worker's state.
func (b *book) observe(c workerset.Change) {
	w := c.Worker
	g, id := b.group(w.Group), identity(w)
	live := b.Workers[id]
	live.Group, live.inherited = w.Group, false
	live.Counts = live.Counts.max(countsOf(w))
	if w.State == draining && live.Draining.IsZero() {
		live.Draining = w.Since
	}
	if c.From == starting && w.State == standby {
		g.Start.observe(w.Since.Sub(w.Started))
	}
	if w.State != exited {
		b.Workers[id], b.Groups[w.Group] = live, g
		return
	}
	g.Dead = g.Dead.plus(live.Counts)
	if !live.Draining.IsZero() {
		g.Drain.observe(w.Since.Sub(live.Draining))
	}
	if c.Restart || w.Cause == string(wire.CauseRecycle) {
		g.Restarts[causeOf(w.Cause)]++
	}
	delete(b.Workers, id)
	b.Groups[w.Group] = g
}

// otherCause stands for what a worker has called by a name of its own.
const otherCause = "other"

// causeOf keeps a worker from making up series.
func causeOf(cause string) string {
	if slices.Contains(wire.Causes, wire.Cause(cause)) {
		return cause
	}
	return otherCause
}

// status takes in what the set has said last. Workers of which nothing is known have ended
// meanwhile, and are added up already.
func (b *book) status(st workerset.Status) {
	for _, gs := range st.Groups {
		g := b.group(gs.Name)
		now := uint64(max(0, gs.Failures))
		if now < g.Seen {
			g.Seen = 0 // it has lost its history
		}
		g.Failures += now - g.Seen
		g.Seen = now
		b.Groups[gs.Name] = g
		for _, w := range gs.Workers {
			if live, ok := b.Workers[identity(w)]; ok {
				live.Counts = live.Counts.max(countsOf(w))
				b.Workers[identity(w)] = live
			}
		}
	}
}

// superseded is the result of an upgrade if the next one has begun before it had another.
const superseded = "superseded"

// results are all that upgrades may have.
var results = []string{string(control.Done), string(control.Failed), string(control.Stopped), string(control.RolledBack), superseded}

// begin is the beginning of an upgrade, which fails or is given away. One that undoes the
// one before it is a part of that.
func (b *book) begin(now time.Time, undo bool) { b.tried, b.undo = now, undo }

// fail is the end of an upgrade that has changed nothing.
func (b *book) fail() { b.Upgrades[string(control.Failed)]++ }

// serve: the workers of the upgrade that has led here have replaced all others. To the
// first generation none has.
func (b *book) serve(now time.Time) {
	if !b.Rolling.IsZero() && !b.Served {
		b.Upgrade.observe(now.Sub(b.Rolling))
		b.Served = true
	}
}

// settle is what has become of it in the end.
func (b *book) settle(result control.Result) {
	if !b.Rolling.IsZero() {
		b.Upgrades[string(result)]++
		b.Rolling = time.Time{}
	}
}

// give is what the next parent begins with. This one goes on as it is: it may have to.
func (b *book) give(now clock.Reading) ([]byte, error) {
	next := *b
	next.Upgrades = maps.Clone(b.Upgrades)
	switch {
	case b.undo: // whose result is the next one's to tell
		next.Served = true
	case !b.Rolling.IsZero():
		next.Upgrades[superseded]++
		fallthrough
	default:
		next.Rolling, next.Served = b.tried, false
	}
	next.Clock, next.Rolling = now, now.Note(next.Rolling)
	next.Workers = maps.Clone(b.Workers)
	for id, w := range next.Workers {
		w.Draining = now.Note(w.Draining)
		next.Workers[id] = w
	}
	return json.Marshal(next)
}

// take adds what the parent before has given. What can't be understood changes nothing.
func (b *book) take(state []byte) error {
	var o book
	if err := json.Unmarshal(state, &o); err != nil {
		return err
	}
	for name, og := range o.Groups {
		g := b.group(name)
		g.Dead = g.Dead.plus(og.Dead)
		for cause, n := range og.Restarts {
			g.Restarts[cause] += n
		}
		// The set adds what it has seen itself to what it inherits, as is done here.
		g.Failures += og.Failures
		g.Seen += og.Seen
		g.Start.add(og.Start)
		g.Drain.add(og.Drain)
		b.Groups[name] = g
	}
	for id, w := range o.Workers {
		w.inherited, w.Draining = true, o.Clock.Past(w.Draining)
		b.Workers[id] = w
	}
	for result, n := range o.Upgrades {
		b.Upgrades[result] += n
	}
	b.Upgrade.add(o.Upgrade)
	b.Rolling, b.Served = o.Clock.Past(o.Rolling), o.Served
	return nil
}

// adopted adds up those that were not there any more to be taken over.
func (b *book) adopted() {
	for id, w := range b.Workers {
		if w.inherited {
			g := b.group(w.Group)
			g.Dead = g.Dead.plus(w.Counts)
			b.Groups[w.Group] = g
			delete(b.Workers, id)
		}
	}
}

// connections are a group's totals.
func (b *book) connections(name string) counts {
	total := b.Groups[name].Dead
	for _, w := range b.Workers {
		if w.Group == name {
			total = total.plus(w.Counts)
		}
	}
	return total
}
