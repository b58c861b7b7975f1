//go:build linux

package workerset

import (
	"testing"
	"time"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// What the workers of a group of two are told, each as it is described.
func TestMoves(t *testing.T) {
	type is struct {
		state lifecycle.State
		phase wire.Phase // that it has said; none: nothing yet, to this parent
		stale bool
		want  wire.Move
	}
	const (
		serving, condemned, draining = lifecycle.Serving, lifecycle.Condemned, lifecycle.Draining
		says, drains                 = wire.PhaseServing, wire.PhaseDraining
	)
	for name, tc := range map[string]struct {
		workers  []is
		stopping bool
		long     bool // since the states began
	}{
		"both serve":            {workers: []is{{serving, says, false, "share"}, {serving, says, false, "share"}}},
		"one does not say it":   {workers: []is{{serving, says, false, "share"}, {serving, wire.PhaseReady, false, ""}}},
		"taken over":            {workers: []is{{serving, "", true, ""}, {draining, "", true, "keep"}}},
		"old ones serve":        {workers: []is{{serving, says, true, "share"}, {serving, wire.PhaseReady, false, ""}, {draining, drains, true, "keep"}}},
		"rolled by half":        {workers: []is{{serving, says, true, "stay"}, {draining, drains, true, "keep"}, {serving, says, false, "share"}}},
		"for long":              {workers: []is{{serving, says, true, "stay"}, {draining, drains, true, "give"}, {serving, says, false, "share"}}, long: true},
		"rolled":                {workers: []is{{draining, drains, true, "give"}, {serving, says, false, "share"}, {serving, says, false, "share"}}},
		"one failed":            {workers: []is{{condemned, says, false, "stay"}, {serving, says, false, "share"}}},
		"nobody, not even long": {workers: []is{{draining, drains, false, "keep"}, {draining, drains, false, "keep"}}, long: true},
		"stopping":              {workers: []is{{draining, drains, false, "take"}, {serving, says, false, "take"}}, stopping: true},
	} {
		t.Run(name, func(t *testing.T) {
			g := newGroup(Group{Name: "web", Count: 2, Queues: map[string]Queue{"http": {}}})
			since := time.Now()
			if tc.long {
				since = since.Add(-2 * gatherTime)
			}
			for _, w := range tc.workers {
				in := &incarnation{group: g, state: w.state, stale: w.stale, since: since}
				in.report.Phase = w.phase
				g.members = append(g.members, in)
			}
			for i, w := range tc.workers {
				if got := g.members[i].move(tc.stopping); got != w.want {
					t.Errorf("worker %d, %v: %q, want %q", i, w.state, got, w.want)
				}
			}
		})
	}
	g := newGroup(Group{Name: "web", Count: 1})
	g.members = []*incarnation{{group: g, state: serving, report: wire.State{Phase: says}}}
	if got := g.members[0].move(false); got != wire.MoveTake {
		t.Errorf("the only one: %q", got)
	}
	// One that has reached a limit takes none, if somebody else does.
	worn := g.members[0]
	worn.worn = "age 1h0m"
	if got := worn.move(false); got != wire.MoveTake {
		t.Errorf("the only one, worn: %q", got)
	}
	g.members = append(g.members, &incarnation{group: g, state: serving, report: wire.State{Phase: says}})
	if got, other := worn.move(false), g.members[1].move(false); got != wire.MoveStay || other != wire.MoveTake {
		t.Errorf("worn: %q, beside %q", got, other)
	}
}
