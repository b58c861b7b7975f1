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
