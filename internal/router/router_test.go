package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// service is a router whose workers are named by their group and slot, such as "a1";
// its methods do what a parent's loop does.
type service struct {
	*Router
	t     *testing.T
	peers map[string]Peer
	n     int
}

func newService(t *testing.T, counts map[string]int) *service {
	s := &service{Router: New(), t: t, peers: map[string]Peer{"parent": Parent}}
	s.Groups(counts)
	return s
}

func sender(p Peer, slot string, generation int) wire.Sender {
	return wire.Sender{Group: slot[:1], Slot: int(slot[1] - '0'), ID: int(p), Generation: generation}
}

// worker makes a worker known; names after the slot tell those of one slot apart.
func (s *service) worker(name string, ph Phase) Peer {
	p, ok := s.peers[name]
	if !ok {
		p = Peer(len(s.peers))
		s.peers[name] = p
	}
	s.Put(p, sender(p, name, 1), ph)
	return p
}

func (s *service) post(from string, to wire.Address, data string) (n int) {
	s.t.Helper()
	s.n++
	if _, err := s.Post(s.peers[from], wire.Message{N: s.n, To: to, Type: "x", Data: json.RawMessage(data)}); err != nil {
		s.t.Fatal(err)
	}
	return s.n
}

// next gives a peer what there is next, and says what it is: "message DATA (from SLOT)"
// or "result N WHY".
func (s *service) next(name string) string {
	p := s.peers[name]
	it, ok := s.Next(p)
	switch {
	case !ok:
		return ""
	case it.Result != nil:
		text := fmt.Sprint("result ", it.Result.N, " ", it.Result.Why, string(it.Result.Data), it.Result.Text)
		if it.Result.Cmd != wire.CmdSent {
			s.t.Errorf("%+v", it)
		}
		s.Took(p)
		return text
	}
	m := it.Message
	s.Took(p)
	if m.Cmd != wire.CmdMessage || m.Type != "x" || m.To != (wire.Address{}) {
		s.t.Errorf("%s for %+v of type %q", m.Cmd, m.To, m.Type)
	}
	return fmt.Sprint("message ", string(m.Data))
}

// all is everything that there is for a peer.
func (s *service) all(name string) (list []string) {
	for {
		v := s.next(name)
		if v == "" {
			return list
		}
		list = append(list, strings.TrimPrefix(v, "message "))
	}
}

// has are the numbers of a peer's parcels.
func (s *service) has(name string) []int {
	return slices.Sorted(maps.Keys(s.Router.peers[s.peers[name]].given))
}

func (s *service) doneAll(name string) {
	for _, n := range s.has(name) {
		s.Done(s.peers[name], wire.Result{N: n})
	}
}

func (s *service) want(name string, want ...string) {
	s.t.Helper()
	if got := s.all(name); !slices.Equal(got, want) {
		s.t.Errorf("%s gets %q, want %q", name, got, want)
	}
}

var (
	toParent = wire.Address{To: wire.ToParent}
	toAll    = wire.Address{To: wire.ToAll}
	groupA   = wire.Address{To: wire.ToGroup, Group: "a"}
	anyA     = wire.Address{To: wire.ToAny, Group: "a"}
)

func slot(group string, n int) wire.Address {
	return wire.Address{To: wire.ToSlot, Group: group, Slot: n}
}

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

// TestFairness: one sender does not keep others from a worker, and all of them together
// give it no more than Window.
func TestFairness(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 9})
	s.worker("a1", Serves)
	got, shares := 0, []int{}
	for i := range 9 {
		from := fmt.Sprint("b", i+1)
		s.worker(from, Serves)
		for range Window {
			s.post(from, slot("a", 1), from)
		}
		n := len(s.all("a1"))
		got += n
		shares = append(shares, n)
	}
	if got != Window || !slices.Equal(shares, []int{32, 16, 8, 4, 2, 1, 1, 0, 0}) {
		t.Errorf("%d parcels: %v", got, shares)
	}
}

// TestWindow: a peer has no more than half of Window parcels of one sender; the bounds of
// what it sends.
func TestWindow(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 3})
	s.worker("a1", Serves)
	for _, from := range []string{"b1", "b2"} {
		s.worker(from, Serves)
		for range Window {
			s.post(from, slot("a", 1), "1")
		}
	}
	if got := len(s.all("a1")); got != Window/2+Window/4 {
		t.Errorf("%d parcels at once", got)
	}
	over := func(from string, m wire.Message) {
		t.Helper()
		before := len(s.letters)
		m.N, m.To = 1, slot("a", 1)
		if _, err := s.Post(s.peers[from], m); !errors.Is(err, ErrOverrun) || len(s.letters) != before {
			t.Errorf("%v, and %d letters more", err, len(s.letters)-before)
		}
	}
	over("b1", wire.Message{})
	s.Done(s.peers["a1"], wire.Result{N: s.has("a1")[0]})
	if got := s.Dirty(); !slices.Contains(got, s.peers["a1"]) {
		t.Errorf("dirty: %v", got)
	}
	if got := len(s.all("a1")); got != 1 {
		t.Errorf("%d more parcels when one was done", got)
	}
	over("b1", wire.Message{}) // its result has not been sent yet
	if got := s.next("b1"); !strings.HasPrefix(got, "result") {
		t.Error(got)
	}
	s.post("b1", slot("a", 1), "1")
	over("b1", wire.Message{})

	s.worker("b3", Serves)
	big := json.RawMessage(strings.Repeat("x", WindowBytes+1))
	s.post("b3", slot("a", 1), string(big)) // one may always be
	over("b3", wire.Message{Data: json.RawMessage("1")})
	s.End(s.peers["b3"], false)
	s.worker("b3x", Serves)
	for range 2 {
		s.post("b3x", slot("a", 1), string(big[:WindowBytes/2]))
	}
	over("b3x", wire.Message{Data: json.RawMessage("1")})
	s.End(s.peers["b3x"], false)
	s.worker("b3y", Serves)
	p := s.peers["b3y"]
	for i := range Window / wire.MessageFiles {
		if _, err := s.Post(p, wire.Message{N: i + 1, To: slot("a", 1), Files: wire.MessageFiles}); err != nil {
			t.Fatal(err)
		}
	}
	over("b3y", wire.Message{Files: 1})
	if _, err := s.Post(4711, wire.Message{}); err == nil {
		t.Error("somebody who is not there has sent something")
	}
}

// TestMalformed: what no Endpoint sends is refused, and kept nowhere.
func TestMalformed(t *testing.T) {
	t.Parallel()
	for _, m := range []wire.Message{
		{N: 0}, {N: -1}, {N: 1, Files: -1}, {N: 1, Files: wire.MessageFiles + 1}, {N: 1, Type: strings.Repeat("x", wire.MessageTypeSize+1)},
	} {
		s := newService(t, map[string]int{"a": 1})
		s.worker("a1", Serves)
		m.To = slot("a", 1)
		id, err := s.Post(Parent, m)
		if err != nil || !slices.Equal(s.Ended(), []int{id}) || len(s.letters) != 0 {
			t.Errorf("%.50v: %v, %d letters", m, err, len(s.letters))
		}
		s.want("a1")
		if got := s.next("parent"); !strings.HasPrefix(got, fmt.Sprintf("result %d refused", m.N)) {
			t.Error(got)
		}
		if pr := s.Router.peers[Parent]; pr.letters != 0 || pr.bytes != 0 || pr.files != 0 {
			t.Errorf("%+v", pr)
		}
	}
}

// TestRefuse: what can't be sent ends, whether a message or a result.
func TestRefuse(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 2})
	s.worker("a1", Serves)
	p := s.worker("a2", Serves)
	n := s.post("a1", groupA, "1")
	s.Refuse(s.peers["a1"], "too long")
	s.want("a1")
	s.Refuse(s.peers["a1"], "nothing")
	s.want("a2", "1")
	s.Done(p, wire.Result{N: s.has("a2")[0], Data: json.RawMessage("2")})
	s.want("a1", fmt.Sprintf("result %d refusedtoo long", n))

	n = s.post("a1", slot("a", 2), "2")
	s.want("a2", "2")
	s.Done(p, wire.Result{N: s.has("a2")[0], Data: json.RawMessage("3")})
	s.Refuse(s.peers["a1"], "too long")
	s.want("a1", fmt.Sprintf("result %d handlertoo long", n))
}

// TestFirstFailure: of several the first that failed is the result, and no answer.
func TestFirstFailure(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 3})
	for _, name := range []string{"a1", "a2", "a3"} {
		s.worker(name, Serves)
	}
	n := s.post("parent", groupA, "1")
	done := func(name string, r wire.Result) {
		s.want(name, "1")
		r.N = s.has(name)[0]
		s.Done(s.peers[name], r)
	}
	done("a2", wire.Result{Data: json.RawMessage("2")})
	if l := s.letters[1]; l.result.Data != nil {
		t.Error("an answer is kept")
	}
	done("a1", wire.Result{Why: wire.WhyHandler, Text: "first"})
	if s.Ended() != nil || s.all("parent") != nil {
		t.Error("it has ended")
	}
	s.want("a3", "1")
	s.End(s.peers["a3"], false)
	s.want("parent", fmt.Sprintf("result %d handlerfirst", n))
}

// TestTheDead: what they have sent is delivered, up to a bound.
func TestTheDead(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 1})
	ended := 0
	for i := range 5 {
		name := fmt.Sprint("b1", i)
		s.worker(name, Starts)
		for range Window {
			s.post(name, slot("a", 1), fmt.Sprint(i))
		}
		s.End(s.peers[name], false)
		ended += len(s.Ended())
		if len(s.letters) != Window {
			t.Errorf("%d letters", len(s.letters))
		}
	}
	if ended != 4*Window {
		t.Errorf("%d have ended", ended)
	}
	s.worker("a1", Serves)
	var got []string
	for more := s.all("a1"); more != nil; more = s.all("a1") {
		got = append(got, more...)
		s.doneAll("a1")
	}
	if len(got) != Window || got[0] != "4" {
		t.Errorf("%d, the first %q", len(got), got[0])
	}
	if len(s.letters) != 0 || len(s.Ended()) != Window {
		t.Errorf("%d letters", len(s.letters))
	}
	// By bytes and files; what somebody has stays.
	for i := range 3 {
		name := fmt.Sprint("b1x", i)
		s.worker(name, Starts)
		if _, err := s.Post(s.peers[name], wire.Message{N: 1, To: slot("a", 1), Type: "x", Files: 16, Data: json.RawMessage(strings.Repeat("x", WindowBytes))}); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			s.next("a1")
		}
		s.worker("a1", Leaves)
		s.End(s.peers[name], false)
	}
	if len(s.letters) != 2 {
		t.Errorf("%d letters, want one that is being handled and the youngest", len(s.letters))
	}
}
