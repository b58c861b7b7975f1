//go:build linux

package control

import (
	"net/url"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/logs"
)

// FuzzWish: of what a client asks for, what is taken for a wish is one, and is understood again
// when it is asked for once more.
func FuzzWish(f *testing.F) {
	for _, seed := range []string{"restart?worker=web/1", "scale?group=web&count=3", "drain?worker=4711", "stop?now=true", "reopen", "kill?worker=", "scale?count=-1&count=2"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, asked string) {
		verb, query, _ := strings.Cut(asked, "?")
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		w, err := parseWish(Verb(verb), q)
		if err != nil {
			return
		}
		u, err := url.Parse(w.path())
		if err != nil {
			t.Fatal(err)
		}
		again, err := parseWish(Verb(strings.TrimPrefix(u.Path, "/v1/")), u.Query())
		if err != nil || again != w || w.Validate() != nil {
			t.Errorf("%q is %+v, and %q is %+v, %v", asked, w, u, again, err)
		}
	})
}

// FuzzRecords: what is asked of the history is a part of it, and who names a worker means no
// other one.
func FuzzRecords(f *testing.F) {
	for _, seed := range []string{"worker=web", "worker=web/1/2/3&limit=1", "worker=4711", "entry=2", "limit=-1", "worker=/1", "worker=web/1/2/3/4"} {
		f.Add(seed)
	}
	all := []history.Entry{
		{N: 1, Death: &history.Death{Group: "web", Slot: 1, ID: 2, Generation: 3, Pid: 4711}},
		{N: 2, Upgrade: &history.Upgrade{Generation: 4}},
		{N: 3, Death: &history.Death{Group: "jobs", Slot: 1, ID: 1, Generation: 4, Pid: 4712}},
	}
	f.Fuzz(func(t *testing.T, query string) {
		q, err := url.ParseQuery(query)
		if err != nil {
			return
		}
		list, err := chosen(all, q)
		if err != nil {
			return
		}
		last := 0
		for _, e := range list {
			if e.N <= last {
				t.Fatalf("%q: %+v", query, list)
			}
			last = e.N
		}
		if sel, _ := ParseSelector(q.Get("worker")); !sel.all() && sel.Matches(logs.Worker{Group: "web", Pid: 1}) && sel.Matches(logs.Worker{Group: "jobs", Pid: 2}) {
			t.Errorf("%q means any worker", query)
		}
	})
}
