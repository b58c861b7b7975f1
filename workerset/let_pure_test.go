//go:build linux

package workerset

import "testing"

// TestLetGo: why a worker is let go, in each case; and the first reason stays.
func TestLetGo(t *testing.T) {
	t.Parallel()
	s := &Set{cfg: Config{Generation: 3}}
	for _, c := range []struct {
		in       *incarnation
		stopping bool
		dropped  bool
		want     string
	}{
		{in: &incarnation{slot: 1, generation: 3}, want: ""},
		{in: &incarnation{slot: 1, generation: 3, stale: true}, want: letRestart},
		{in: &incarnation{slot: 1, generation: 2, stale: true}, want: letUpgrade},
		{in: &incarnation{slot: 3, generation: 2, stale: true}, want: letScale},
		{in: &incarnation{slot: 1, generation: 2, stale: true}, dropped: true, want: letDropped},
		{in: &incarnation{slot: 3, generation: 3}, stopping: true, want: letStop},
		{in: &incarnation{slot: 1, generation: 3, let: letScale}, stopping: true, want: letScale},
	} {
		g := newGroup(Group{Name: "web", Count: 2})
		g.dropped, s.stopping, c.in.group = c.dropped, c.stopping, g
		if s.letGo(c.in); c.in.let != c.want {
			t.Errorf("slot %d of generation %d: %q, not %q", c.in.slot, c.in.generation, c.in.let, c.want)
		}
	}
}
