package router

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

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
