package router

import (
	"fmt"
	"slices"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// doubtful is a service in which worker b1 has sent 1 and 2 to a1, which has 1, and the
// parent 3, which waits; another parent has decided since.
func doubtful(t *testing.T) (s *service, n int) {
	s = newService(t, map[string]int{"a": 1, "b": 1})
	s.worker("b1", Serves)
	s.worker("a1", Serves)
	s.post("b1", slot("a", 1), "1")
	s.want("a1", "1")
	s.worker("a1", Leaves)
	s.post("b1", slot("a", 1), "2")
	s.post("parent", slot("a", 1), "3")
	s.worker("a1", Serves)
	s.Doubt()
	return s, s.doubts
}

// TestMail: what a worker may say, and what becomes of each message. The numbers of
// doubtful's parcels are 2, 4 and 6.
func TestMail(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		a, b   wire.Mail
		has    []int    // a1, of what it is to be done with
		gets   []string // a1, after that
		sender []string // b1
		parent []string
	}{
		"nothing has happened":       {wire.Mail{Have: []int{2}}, wire.Mail{Sent: []int{1, 2}}, []int{2}, []string{"2", "3"}, nil, nil},
		"1 was done":                 {wire.Mail{Done: []int{2}}, wire.Mail{Sent: []int{1, 2}}, nil, []string{"2", "3"}, []string{"result 1 lost"}, nil},
		"1 was done, and that heard": {wire.Mail{Done: []int{2}}, wire.Mail{Sent: []int{2}}, nil, []string{"2", "3"}, nil, nil},
		"1 was given back":           {wire.Mail{}, wire.Mail{Sent: []int{1, 2}}, nil, []string{"2", "3"}, []string{"result 1 lost"}, nil},
		"2 was given":                {wire.Mail{Have: []int{2, 4}}, wire.Mail{Sent: []int{1, 2}}, []int{2, 4}, []string{"3"}, nil, nil},
		"2 was done":                 {wire.Mail{Have: []int{2}, Done: []int{4}}, wire.Mail{Sent: []int{1, 2}}, []int{2}, []string{"3"}, []string{"result 2 lost"}, nil},
		"all was done":               {wire.Mail{Done: []int{2, 4, 6}}, wire.Mail{}, nil, nil, nil, []string{"result 3 lost"}},
		"all was forgotten":          {wire.Mail{Forgot: 6}, wire.Mail{}, nil, nil, nil, []string{"result 3 lost"}},
		"2 was ended otherwise":      {wire.Mail{Have: []int{2}}, wire.Mail{Sent: []int{1}}, []int{2}, []string{"3"}, nil, nil},
		"4 was sent to the other":    {wire.Mail{Have: []int{2, 8}}, wire.Mail{Sent: []int{1, 2, 4}}, []int{2}, []string{"2", "3"}, []string{"result 4 lost"}, nil},
	} {
		for _, first := range []string{"a1", "b1"} {
			t.Run(name+", first "+first, func(t *testing.T) {
				s, n := doubtful(t)
				s.want("a1")
				a, b := c.a, c.b
				a.N, b.N = n, n
				s.Mail(s.peers["a1"], wire.Mail{N: n + 1}) // the answer to another question
				if first == "a1" {
					s.Mail(s.peers["a1"], a)
				} else {
					s.Mail(s.peers["b1"], b)
				}
				s.Dirty()
				if first == "a1" {
					s.Mail(s.peers["b1"], b)
				} else {
					s.Mail(s.peers["a1"], a)
				}
				if got := s.Dirty(); c.gets != nil && !slices.Contains(got, s.peers["a1"]) || first == "a1" && !slices.Contains(got, s.peers["b1"]) {
					t.Errorf("dirty: %v", got)
				}
				s.Mail(s.peers["a1"], wire.Mail{N: n}) // once is enough
				if got := s.has("a1"); !slices.Equal(got, c.has) {
					t.Errorf("has %v, want %v", got, c.has)
				}
				// 2 waits for 1, which may come back.
				got := s.all("a1")
				if c.has != nil && slices.Contains(got, "2") {
					t.Error("2 overtakes 1")
				}
				s.doneAll("a1")
				got = append(got, s.all("a1")...)
				slices.Sort(got)
				if !slices.Equal(got, c.gets) {
					t.Errorf("gets %q, want %q", got, c.gets)
				}
				s.doneAll("a1")
				var lost []string
				for _, r := range s.all("b1") {
					if r[len(r)-5:] == " lost" {
						lost = append(lost, r)
					}
				}
				if !slices.Equal(lost, c.sender) {
					t.Errorf("the sender hears %q, want %q", lost, c.sender)
				}
				if c.parent != nil {
					s.want("parent", c.parent...)
				}
				if len(s.letters) != 0 || s.Router.peers[s.peers["b1"]].letters != 0 {
					t.Errorf("%d letters left", len(s.letters))
				}
			})
		}
	}
}

// TestDoubt: before its mail a worker gets nothing and nothing of it is delivered; with
// it what it may have had is lost; what waited for the parent itself is as well.
func TestDoubt(t *testing.T) {
	t.Parallel()
	s, _ := doubtful(t)
	s.post("b1", slot("a", 1), "4")
	s.want("a1")
	s.End(s.peers["a1"], false)
	s.worker("a1x", Serves)
	s.want("a1x")
	s.want("parent", "result 3 lost")
	s.End(s.peers["b1"], false)
	if got := s.Dirty(); !slices.Contains(got, s.peers["a1x"]) {
		t.Errorf("dirty: %v", got)
	}
	s.want("a1x", "4") // sent since

	s = newService(t, map[string]int{"a": 1})
	var n int
	for range Window/2 + 1 {
		n = s.post("parent", toParent, "1")
	}
	if got := len(s.all("parent")); got != Window/2 {
		t.Errorf("%d", got)
	}
	s.Doubt()
	s.want("parent", fmt.Sprintf("result %d lost", n))

	// Another worker of the slot may have what waits.
	s, n = doubtful(t)
	s.Mail(s.peers["b1"], wire.Mail{N: n, Sent: []int{1, 2}})
	s.worker("a1x", Serves)
	s.want("a1x")
	s.Stop()
	s.worker("a1x", Leaves)
	s.worker("a1", Leaves)
	s.want("b1") // not gone: a1 may have it
	s.Mail(s.peers["a1"], wire.Mail{N: n, Have: []int{2}})
	s.want("b1", "result 2 gone")
}

// TestEarlyInDoubt: what a worker had before is taken for what it may give back, also if
// it has never stopped as far as is known here.
func TestEarlyInDoubt(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 1})
	s.worker("b1", Serves)
	s.worker("a1", Serves)
	s.post("b1", slot("a", 1), "1")
	s.want("a1", "1")
	s.Doubt()
	n := s.doubts
	s.Mail(s.peers["a1"], wire.Mail{N: n, Have: s.has("a1")})
	s.Mail(s.peers["b1"], wire.Mail{N: n, Sent: []int{1}})
	s.post("b1", slot("a", 1), "2")
	s.want("a1")
	s.doneAll("a1")
	s.want("a1", "2")
}

// TestHeardOf: a letter whose result the sender has had is nobody's in the next parent.
func TestHeardOf(t *testing.T) {
	t.Parallel()
	s, n := doubtful(t)
	s.Mail(s.peers["a1"], wire.Mail{N: n, Have: []int{2}})
	s.Mail(s.peers["b1"], wire.Mail{N: n})
	next := newService(t, map[string]int{"a": 1, "b": 1})
	next.worker("b1", Serves)
	next.worker("a1", Serves)
	next.Restore(s.State())
	if pr := next.Router.peers[next.peers["b1"]]; pr.letters != 0 {
		t.Errorf("%d letters", pr.letters)
	}
	next.doneAll("a1")
	next.want("b1")
}

// TestParentsLetters: those of parents that are no more are bounded as well.
func TestParentsLetters(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1})
	for range 5 {
		for range Window {
			s.post("parent", slot("a", 1), "1")
		}
		next := newService(t, map[string]int{"a": 1})
		next.Restore(s.State())
		if len(next.letters) != Window {
			t.Errorf("%d letters", len(next.letters))
		}
		s = next
	}
}

// TestDoubtfulWindow: a worker that has had results of the other parent may have sent
// more than is known to fit.
func TestDoubtfulWindow(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 1, "b": 1})
	p := s.worker("b1", Serves)
	for range Window {
		s.post("b1", slot("a", 1), "1")
	}
	s.Doubt()
	n := s.doubts
	var sent []int
	for range Window {
		sent = append(sent, s.post("b1", slot("a", 1), "1"))
	}
	if _, err := s.Post(p, wire.Message{N: 1, To: slot("a", 1)}); err == nil {
		t.Error("there is no end to it")
	}
	s.Mail(p, wire.Mail{N: n, Sent: sent})
	if got := s.Router.peers[p].letters; got != Window {
		t.Errorf("%d letters", got)
	}
	// A worker that says too much makes nothing grow.
	s.Doubt()
	for i := range 1000 {
		sent = append(sent, 1000+i)
	}
	s.Mail(p, wire.Mail{Sent: sent})
	if pr := s.Router.peers[p]; len(pr.results)+pr.letters > Window {
		t.Errorf("%d results", len(pr.results))
	}
}

// TestRestore: what another parent takes over.
func TestRestore(t *testing.T) {
	t.Parallel()
	s := newService(t, map[string]int{"a": 3, "b": 1})
	for _, name := range []string{"a1", "a2", "b1", "a3"} {
		s.worker(name, Serves)
	}
	s.post("a3", slot("a", 1), "the dead one's")
	s.End(s.peers["a3"], false)
	s.post("b1", groupA, "group")
	s.post("b1", toParent, "parent")
	s.post("parent", slot("a", 2), "the parent's")
	s.want("a1", "the dead one's", "group")
	s.want("parent", "parent")
	s.want("a2", "group", "the parent's")
	s.Done(s.peers["a2"], wire.Result{N: s.has("a2")[0], Why: wire.WhyHandler, Text: "bad"})
	n := s.post("b1", slot("c", 1), "nowhere")
	st := s.State()

	next := newService(t, map[string]int{"a": 3, "b": 1})
	next.worker("a3new", Starts)
	next.post("a3new", slot("a", 3), "after")
	next.post("a3new", slot("b", 1), "new")
	next.peers["a1"], next.peers["b1"] = 7, 8 // other numbers; a2 has died in between
	next.Put(7, sender(s.peers["a1"], "a1", 1), Serves)
	next.Put(8, sender(s.peers["b1"], "b1", 1), Serves)
	ids := next.Restore(st)
	if len(ids) != 4 || next.last < st.Last {
		t.Errorf("%v, last %d", ids, next.last)
	}
	if got := next.Ended(); len(got) != 2 {
		t.Errorf("%v ended: the parent's own, and what it was handling", got)
	}
	next.want("b1", fmt.Sprintf("result %d address", n), "result 3 lost", "new")
	next.want("parent")
	next.want("a1")
	next.doneAll("a1")
	next.Put(9, sender(9, "a3", 1), Serves)
	next.peers["a3"] = 9
	next.worker("a3new", Serves)
	next.want("a3", "group", "after") // generation 1 like the other, and younger
	next.doneAll("a3")
	next.doneAll("b1")
	next.want("b1", "result 2 handlerbad")
	if len(next.letters) != 0 || len(next.Ended()) != 4 {
		t.Errorf("%d letters", len(next.letters))
	}
}
