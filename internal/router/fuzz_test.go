package router

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzPeer lets a worker say anything: nothing panics, what is kept is bounded, and once
// all have ended nothing is left.
func FuzzPeer(f *testing.F) {
	for _, lines := range []string{
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"all"},"type":"x","data":1}` + "\n" + `{"cmd":"NODE_HANDOVER_DONE","n":2}`,
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"slot","group":"a","slot":1}}` + "\n" + `{"cmd":"NODE_HANDOVER_AGAIN","n":2}`,
		`{"cmd":"NODE_HANDOVER_MESSAGE","n":-1,"to":{"to":"parent"},"files":-1}` + "\n" + `{"cmd":"NODE_HANDOVER_MAIL","sent":[1,1,2],"have":[2,-1],"done":[2],"forgot":9}`,
		"doubt\n" + `{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"any","group":"b"}}` + "\n" + `{"cmd":"NODE_HANDOVER_MAIL","n":1,"sent":[7]}`,
		"restore\nleave\nserve\nstop",
	} {
		f.Add([]byte(lines))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		r := New()
		counts := map[string]int{"a": 2, "b": 1}
		r.Groups(counts)
		hostile := sender(1, "a1", 1)
		put := func() {
			r.Put(1, hostile, Serves)
			r.Put(2, sender(2, "a2", 1), Serves)
			r.Put(3, sender(3, "b1", 1), Starts)
		}
		put()
		for i, line := range bytes.Split(data, []byte("\n")) {
			var m wire.Message
			var res wire.Result
			var mail wire.Mail
			cmd, _ := wire.Cmd(line)
			switch {
			case string(line) == "doubt":
				r.Doubt()
			case string(line) == "restore":
				raw, err := json.Marshal(r.State())
				var st State
				if err == nil {
					err = json.Unmarshal(raw, &st)
				}
				if err != nil {
					t.Fatal(err)
				}
				r = New()
				r.Groups(counts)
				put()
				r.Restore(st)
			case string(line) == "leave":
				r.Put(1, hostile, Leaves)
			case string(line) == "serve":
				r.Put(1, hostile, Serves)
			case string(line) == "stop":
				r.Stop()
			case cmd == wire.CmdMessage && json.Unmarshal(line, &m) == nil:
				_, _ = r.Post(1, m)
			case cmd == wire.CmdDone && json.Unmarshal(line, &res) == nil:
				r.Done(1, res)
			case cmd == wire.CmdAgain && json.Unmarshal(line, &res) == nil:
				r.Again(1, res.N)
			case cmd == wire.CmdMail && json.Unmarshal(line, &mail) == nil:
				r.Mail(1, mail)
			}
			for _, p := range r.Dirty() {
				for n := 0; ; n++ {
					if _, ok := r.Next(p); !ok {
						break
					}
					if (i+n)%5 == 4 {
						r.Refuse(p, "no")
						r.Took(p)
					} else {
						r.Took(p)
					}
					if n > 10*Window {
						t.Fatal("there is always more")
					}
				}
			}
			pr := r.peers[1]
			if pr.letters+len(pr.results) > 2*Window || len(r.letters) > 4*Window {
				t.Fatalf("%d letters, %d results", pr.letters, len(pr.results))
			}
		}
		r.Stop()
		for _, p := range []Peer{1, 2, 3} {
			r.End(p, p%2 == 0)
		}
		for _, n := range slices.Sorted(maps.Keys(r.peers[Parent].given)) {
			r.Done(Parent, wire.Result{N: n})
		}
		for {
			if _, ok := r.Next(Parent); !ok {
				break
			}
			r.Took(Parent)
			for _, n := range slices.Sorted(maps.Keys(r.peers[Parent].given)) {
				r.Done(Parent, wire.Result{N: n})
			}
		}
		if len(r.letters) != 0 || len(r.boxes) != 1 || len(r.peers) != 1 {
			t.Fatalf("left: %d letters, %d boxes", len(r.letters), len(r.boxes))
		}
	})
}
