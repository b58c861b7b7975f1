package router

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// TestAddresses: every kind, and what becomes of it at once. "Waits" is "".
func TestAddresses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		to   wire.Address
		gets string // the workers
		why  wire.Why
	}{
		{toParent, "parent", ""},
		{slot("a", 1), "a1", ""},
		{slot("a", 2), "a2", ""},
		{slot("a", 3), "", ""}, // it starts
		{slot("a", 4), "", ""}, // nobody yet
		{slot("a", 5), "", wire.WhyAddress},
		{slot("a", 0), "", wire.WhyAddress},
		{slot("a", -1), "", wire.WhyAddress},
		{slot("none", 1), "", wire.WhyAddress},
		{slot("", 1), "", wire.WhyAddress},
		{slot("", 0), "", wire.WhyAddress},
		{slot("f", 1), "", wire.WhyUnhandled},
		{groupA, "a1 a2", ""},
		{wire.Address{To: wire.ToGroup, Group: "f"}, "", wire.WhyUnhandled},
		{wire.Address{To: wire.ToGroup, Group: "none"}, "", wire.WhyAddress},
		{wire.Address{To: wire.ToGroup}, "", wire.WhyAddress},
		{wire.Address{To: wire.ToGroup, Group: "m"}, "", ""}, // m2 will come
		{wire.Address{To: wire.ToAny, Group: "m"}, "", ""},
		{slot("m", 1), "", wire.WhyUnhandled},
		{wire.Address{To: wire.ToAny, Group: "b"}, "b1", ""},
		{wire.Address{To: wire.ToAny, Group: "f"}, "", wire.WhyUnhandled},
		{wire.Address{To: wire.ToAny, Group: "none"}, "", wire.WhyAddress},
		{toAll, "a1 a2 b1", ""},
		{wire.Address{}, "", wire.WhyAddress},
		{wire.Address{To: "moon", Group: "a", Slot: 1}, "", wire.WhyAddress},
	} {
		for _, from := range []string{"parent", "a1", "a3"} {
			s := newService(t, map[string]int{"a": 4, "b": 1, "f": 1, "m": 2})
			for _, name := range []string{"a1", "a2", "b1"} {
				s.worker(name, Serves)
			}
			s.worker("a3", Starts)
			s.worker("f1", Mute)
			s.worker("m1", Mute)
			n := s.post(from, c.to, "1")
			var gets []string
			why := wire.Why("")
			for _, name := range slices.Sorted(maps.Keys(s.peers)) {
				switch v := s.next(name); v {
				case "":
				case "message 1":
					gets = append(gets, name)
				default:
					why = wire.Why(strings.TrimPrefix(v, fmt.Sprintf("result %d ", n)))
				}
			}
			if got := strings.Join(gets, " "); got != c.gets || why != c.why {
				t.Errorf("%+v from %s: %q get it, %q; want %q, %q", c.to, from, got, why, c.gets, c.why)
			}
			if ended := len(s.Ended()); ended != map[bool]int{true: 1}[c.why != ""] || len(s.letters) != 1-ended {
				t.Errorf("%+v from %s: %d ended, %d under way", c.to, from, ended, len(s.letters))
			}
		}
	}
}

// TestMixedGroup: those who know no messages are passed over.
func TestMixedGroup(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 2})
	s.worker("a1", Mute)
	s.worker("a2", Starts)
	for range 3 {
		s.post("parent", anyA, "1")
	}
	s.want("parent")
	s.worker("a2", Serves)
	n := s.post("parent", groupA, "2")
	s.want("a2", "1", "1", "1", "2")
	s.doneAll("a2")
	s.want("parent", fmt.Sprintf("result %d ", n-3), fmt.Sprintf("result %d ", n-2), fmt.Sprintf("result %d ", n-1), fmt.Sprintf("result %d ", n))
}

// TestNobodyLeft: to nobody at all is to somebody who does not handle it.
func TestNobodyLeft(t *testing.T) {
	t.Parallel()
	s := newService(t, nil)
	n := s.post("parent", toAll, "1")
	s.want("parent", fmt.Sprintf("result %d unhandled", n))
}

func TestYounger(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		a, b wire.Sender
		want bool
	}{
		{wire.Sender{Generation: 2, ID: 1}, wire.Sender{Generation: 1, ID: 9}, true},
		{wire.Sender{Generation: 1, ID: 9}, wire.Sender{Generation: 2, ID: 1}, false},
		{wire.Sender{Generation: 1, ID: 2}, wire.Sender{Generation: 1, ID: 1}, true},
		{wire.Sender{Generation: 1, ID: 1}, wire.Sender{Generation: 1, ID: 2}, false},
		{wire.Sender{Generation: 1, ID: 1}, wire.Sender{Generation: 1, ID: 1}, false},
	} {
		if got := younger(c.a, c.b); got != c.want {
			t.Errorf("younger(%+v, %+v) = %v", c.a, c.b, got)
		}
	}
}

// TestHopeless: all sets of up to three workers of a slot.
func TestHopeless(t *testing.T) {
	t.Parallel()
	phases := []Phase{Starts, Serves, Leaves, Mute}
	sets := [][]Phase{nil}
	for i := 0; i < len(sets); i++ {
		if len(sets[i]) < 3 {
			for _, ph := range phases {
				sets = append(sets, append(slices.Clone(sets[i]), ph))
			}
		}
	}
	for _, set := range sets {
		for _, count := range []int{0, 1} {
			for _, stop := range []bool{false, true} {
				s := newService(t, map[string]int{"a": count})
				for i, ph := range set {
					s.worker(fmt.Sprint("a1", i), ph)
				}
				if stop {
					s.Stop()
				}
				comes := slices.Contains(set, Starts) || slices.Contains(set, Serves)
				want := wire.WhyGone
				switch {
				case comes:
					want = ""
				case slices.Contains(set, Mute):
					want = wire.WhyUnhandled
				case !stop && count == 1:
					want = ""
				}
				if got := s.hopeless(s.box(Box{"a", 1})); got != want || s.Stopping() != stop {
					t.Errorf("%v, %d slots, stopping %v: %q, want %q", set, count, stop, got, want)
				}
			}
		}
	}
}

// TestWaitsEnd: each event after which nobody will take what waits in a box.
func TestWaitsEnd(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before func(*service)
		event  func(*service)
		why    wire.Why
	}{
		"the group becomes smaller":       {nil, func(s *service) { s.Groups(map[string]int{"a": 1, "b": 1}) }, wire.WhyGone},
		"the group is no more":            {nil, func(s *service) { s.Groups(map[string]int{"b": 1}) }, wire.WhyGone},
		"the service stops":               {nil, func(s *service) { s.Stop() }, wire.WhyGone},
		"who comes knows no messages":     {nil, func(s *service) { s.worker("a2", Mute) }, wire.WhyUnhandled},
		"who comes turns out to":          {func(s *service) { s.worker("a2", Starts) }, func(s *service) { s.worker("a2", Mute) }, wire.WhyUnhandled},
		"the last leaves":                 {func(s *service) { s.worker("a2", Starts); s.Stop() }, func(s *service) { s.worker("a2", Leaves) }, wire.WhyGone},
		"the last dies":                   {func(s *service) { s.worker("a2", Starts); s.Stop() }, func(s *service) { s.End(s.peers["a2"], false) }, wire.WhyGone},
		"one of two dies, the other came": {func(s *service) { s.worker("a2", Starts); s.worker("a2x", Mute) }, func(s *service) { s.End(s.peers["a2"], false) }, wire.WhyUnhandled},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService(t, map[string]int{"a": 2, "b": 1})
			s.worker("b1", Serves)
			if c.before != nil {
				c.before(s)
			}
			n := s.post("b1", slot("a", 2), "1")
			s.want("b1")
			c.event(s)
			if got := s.Dirty(); !slices.Equal(got, []Peer{s.peers["b1"]}) {
				t.Errorf("dirty: %v", got)
			}
			s.want("b1", fmt.Sprintf("result %d %s", n, c.why))
			s.want("a2")
		})
	}
}

// TestAnyTakesTurns: those that are ready, and, if none is, any.
func TestAnyTakesTurns(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 4})
	for _, name := range []string{"a1", "a2", "a4"} {
		s.worker(name, Serves)
	}
	s.worker("a3", Starts)
	count := func() map[string]int {
		got := map[string]int{}
		for range 12 {
			s.post("parent", anyA, "1")
		}
		for _, b := range s.boxes {
			if len(b.queue) > 0 {
				got[fmt.Sprint(b.Group, b.Slot)] = len(b.queue)
			}
		}
		return got
	}
	if got := count(); !maps.Equal(got, map[string]int{"a1": 4, "a2": 4, "a4": 4}) {
		t.Errorf("%v", got)
	}
	for _, name := range []string{"a1", "a2", "a4"} {
		s.all(name)
		s.doneAll(name)
		s.worker(name, Leaves)
	}
	s.all("parent")
	if got := count(); !maps.Equal(got, map[string]int{"a1": 3, "a2": 3, "a3": 3, "a4": 3}) {
		t.Errorf("%v", got)
	}
	s.Groups(map[string]int{"b": 1})
	if len(s.turns) != 0 {
		t.Errorf("the turns of a group that is no more: %v", s.turns)
	}
}

// TestYoungestServes: parcels go to the youngest that serves, and of what the one before
// has of a sender nothing is overtaken.
func TestYoungestServes(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 2})
	s.worker("b1", Serves)
	s.worker("b2", Serves)
	old := s.worker("a1", Serves)
	n1 := s.post("b1", slot("a", 1), "1")
	s.post("b1", slot("a", 1), "2")
	s.want("a1", "1", "2")
	s.worker("a1new", Starts)
	s.post("b1", slot("a", 1), "3")
	s.worker("a1new", Serves)
	s.want("a1")
	s.want("a1new") // 3 waits for 1 and 2
	s.post("b2", slot("a", 1), "4")
	s.want("a1new", "4")
	s.worker("a1", Leaves)
	s.Again(old, s.has("a1")[1])
	s.want("a1new") // 1 is being handled
	s.Dirty()
	s.Done(old, wire.Result{N: s.has("a1")[0], Data: json.RawMessage(`"yes"`)})
	if got := s.Dirty(); !slices.Equal(got, []Peer{s.peers["b1"], s.peers["a1new"]}) {
		t.Errorf("dirty: %v", got)
	}
	s.want("a1new", "2", "3")
	s.want("b1", fmt.Sprintf(`result %d "yes"`, n1))
	// The old one, alone again, gets what the new one had not.
	s.worker("a1", Serves)
	n5 := s.post("b1", slot("a", 1), "5")
	s.End(s.peers["a1new"], false)
	s.want("a1", "5")
	s.want("b1", fmt.Sprintf("result %d lost", n1+1), fmt.Sprintf("result %d lost", n5-2))
}
