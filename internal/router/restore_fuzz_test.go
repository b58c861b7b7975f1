package router

import (
	"encoding/json"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzRestore: whatever the parent before has left, nothing panics, and when all have ended
// nothing is left of it.
func FuzzRestore(f *testing.F) {
	f.Add([]byte(`{"last":9,"letters":[{"id":3,"from":{"group":"a","slot":1,"id":1,"generation":1},"n":1,"to":{"to":"slot","group":"b","slot":1},"type":"x","parcels":[{"n":4,"box":{"group":"b","slot":1}},{"n":5,"box":{},"given":{"group":"a","slot":2}}]}],"unheard":[{"group":"a","slot":1}],"doubts":2}`))
	f.Add([]byte(`{"letters":[{"id":1,"n":-1,"parcels":[{"n":1,"given":{}},{"n":1,"given":{}}],"result":{"why":"lost"}},{"id":1,"parcels":null}],"results":[{"to":{"group":"a","slot":1},"results":[{"n":1},{"n":1}]}]}`))
	r := New()
	r.Groups(map[string]int{"a": 2, "b": 1})
	r.Put(1, sender(1, "a1", 1), Serves)
	if _, err := r.Post(1, wire.Message{N: 1, To: wire.Address{To: wire.ToSlot, Group: "b", Slot: 1}, Type: "x"}); err != nil {
		f.Fatal(err)
	}
	st, err := json.Marshal(r.State())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(st)
	f.Fuzz(func(t *testing.T, state []byte) {
		var st State
		if json.Unmarshal(state, &st) != nil {
			return
		}
		r := New()
		r.Groups(map[string]int{"a": 2, "b": 1})
		for p, who := range map[Peer]wire.Sender{1: sender(1, "a1", 1), 2: sender(2, "a2", 1), 3: sender(3, "b1", 1)} {
			r.Put(p, who, Serves)
		}
		r.Restore(st)
		for _, p := range r.Dirty() {
			for n := 0; n < 10*Window; n++ {
				if _, ok := r.Next(p); !ok {
					break
				}
				r.Took(p)
			}
		}
		r.Mail(1, wire.Mail{N: st.Doubts})
		r.State()
		r.Stop()
		for p := range Peer(4) {
			if p != Parent {
				r.End(p, true)
			}
		}
	})
}
