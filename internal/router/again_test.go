package router

import (
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// TestDiesHeard: a worker of which all was heard has begun with one of each sender, at
// most. The others are its successor's.
func TestDiesHeard(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		heard, doubt bool
		next         []string
		b1, b2       int // results
	}{
		{heard: true, next: []string{"2", "3"}, b1: 1, b2: 1},
		{heard: false, b1: 3, b2: 1},
		{heard: true, doubt: true, b1: 3, b2: 1},
	} {
		s := newService(t, map[string]int{"a": 1, "b": 2})
		for _, name := range []string{"b1", "b2", "a1"} {
			s.worker(name, Serves)
		}
		for _, text := range []string{"1", "2", "3"} {
			s.post("b1", slot("a", 1), text)
		}
		s.post("b2", slot("a", 1), "4")
		s.want("a1", "1", "2", "3", "4")
		if c.doubt {
			s.Doubt()
			s.Mail(s.peers["b1"], wire.Mail{Sent: []int{1, 2, 3}})
			s.Mail(s.peers["b2"], wire.Mail{Sent: []int{4}})
		}
		s.End(s.peers["a1"], c.heard)
		s.worker("a1next", Serves)
		s.want("a1next", c.next...)
		for name, n := range map[string]int{"b1": c.b1, "b2": c.b2} {
			if got := s.Router.peers[s.peers[name]].results; len(got) != n || n > 0 && got[0].Why != wire.WhyLost {
				t.Errorf("%+v: %s: %+v", c, name, got)
			}
		}
	}
}

// TestSaidAgain: a phase that was known changes nothing.
func TestSaidAgain(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1})
	for _, want := range []string{"1", "2"} {
		s.worker("a1", Serves)
		s.post("parent", slot("a", 1), want)
		s.want("a1", want)
	}
}

// TestForgiven: a worker that stopped and goes on gets nothing of a sender before what it
// gives back.
func TestForgiven(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 2})
	s.worker("b1", Serves)
	s.worker("b2", Serves)
	p := s.worker("a1", Serves)
	s.post("b1", slot("a", 1), "1")
	s.post("b1", slot("a", 1), "2")
	s.want("a1", "1", "2")
	s.worker("a1", Leaves)
	s.worker("a1", Serves)
	s.post("b1", slot("a", 1), "3")
	s.post("b2", slot("a", 1), "4")
	s.want("a1", "4")
	n := s.has("a1")
	s.Again(p, n[1])
	s.want("a1") // 1 may come back as well
	s.Again(p, n[0])
	s.want("a1", "1", "2", "3")
	s.Again(p, 4711) // what it does not have
	s.Done(p, wire.Result{N: 4711})
	s.want("a1")
}
