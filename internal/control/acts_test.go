//go:build linux

package control

import (
	"context"
	"errors"
	"net/url"
	"strings"
	"testing"
)

// TestWishes: what a client asks for is what the service hears.
func TestWishes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		wish Wish
		path string
	}{
		{Wish{Verb: Restart}, "/v1/restart"},
		{Wish{Verb: Restart, Worker: "web/1"}, "/v1/restart?worker=web%2F1"},
		{Wish{Verb: Restart, Worker: "4711"}, "/v1/restart?worker=4711"},
		{Wish{Verb: Scale, Count: 3}, "/v1/scale?count=3"},
		{Wish{Verb: Scale, Group: "a & b", Count: 1}, "/v1/scale?count=1&group=a+%26+b"},
		{Wish{Verb: Drain, Worker: "web/1"}, "/v1/drain?worker=web%2F1"},
		{Wish{Verb: Kill, Worker: "12"}, "/v1/kill?worker=12"},
		{Wish{Verb: Stop}, "/v1/stop"},
		{Wish{Verb: Stop, Now: true}, "/v1/stop?now=true"},
		{Wish{Verb: Reopen}, "/v1/reopen"},
	} {
		if got := c.wish.path(); got != c.path {
			t.Errorf("%+v: %s", c.wish, got)
		}
		u, err := url.Parse(c.path)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseWish(c.wish.Verb, u.Query()); err != nil || got != c.wish {
			t.Errorf("%s: %+v, %v", c.path, got, err)
		}
	}
}

func TestBadWishes(t *testing.T) {
	t.Parallel()
	for query, want := range map[string]string{
		"restart?worker=":                  "write GROUP/SLOT",
		"restart?worker=web":               `worker "web": write GROUP/SLOT, such as web/1, or its pid`,
		"restart?worker=1&worker=2":        "restart: the parameter worker stands there twice",
		"restart?wrker=1":                  `restart: there is no parameter "wrker": it has ["worker"]`,
		"scale":                            "scale to 0: at least 1 worker is needed",
		"scale?count=0":                    "scale to 0: at least 1",
		"scale?count=-1":                   "scale to -1: at least 1",
		"scale?count=many":                 `count="many" is no number of workers`,
		"scale?count=99999999999999999999": "is no number",
		"scale?count=2&worker=web/1":       `there is no parameter "worker"`,
		"drain":                            "drain: which worker is missing",
		"kill":                             "kill: which worker is missing",
		"kill?worker=web/0":                `worker "web/0"`,
		"stop?now=perhaps":                 `now="perhaps": true or false`,
		"reopen?worker=web/1":              `reopen: there is no parameter "worker": it has []`,
		"explode":                          `"explode" is nothing that can be asked for`,
	} {
		verb, q, _ := strings.Cut(query, "?")
		values, err := url.ParseQuery(q)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := parseWish(Verb(verb), values); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %+v, %v", query, got, err)
		}
	}
}

// TestAct: from the client to the service, and back.
func TestAct(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{wishes: make(chan Wish, 1), watchers: make(chan *Watcher, 1)}
	serve(t, path, f)
	wish := Wish{Verb: Scale, Group: "web", Count: 3}
	got := &watching{done: make(chan struct{})}
	go func() {
		defer close(got.done)
		got.last, got.err = NewClient(path).Act(within(t), wish, func(ev Event) { got.texts = append(got.texts, ev.Text) })
	}()
	if w := <-f.wishes; w != wish {
		t.Errorf("%+v", w)
	}
	w := <-f.watchers
	w.Tell(Event{Text: "one"})
	w.End(Event{Result: Failed, Reason: "why"})
	if <-got.done; got.err != nil || got.last.Reason != "why" || strings.Join(got.texts, ";") != "one" {
		t.Errorf("%+v", got)
	}
	// What can't be meant is refused, and nothing is asked for.
	if _, err := NewClient(path).Act(within(t), Wish{Verb: Kill}, nil); !errors.Is(err, ErrRefused) || !strings.Contains(err.Error(), "400 Bad Request: kill: which worker") {
		t.Errorf("%v", err)
	}
	if len(f.wishes) > 0 {
		t.Errorf("%+v", <-f.wishes)
	}
}

// TestStopEnds: who asks for a stop waits for the process's end, not for its last word.
func TestStopEnds(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{wishes: make(chan Wish, 1), watchers: make(chan *Watcher, 1)}
	serve(t, path, f)
	done := make(chan error, 1)
	go func() {
		last, err := NewClient(path).Act(within(t), Wish{Verb: Stop}, nil)
		if err == nil && last.Result != Done {
			err = errors.New(last.Reason)
		}
		done <- err
	}()
	w := <-f.watchers
	w.Leave(Event{Result: Done})
	w.End(Event{Result: Failed}) // too late
	w.Tell(Event{Text: "too late"})
	ctx, cancel := context.WithCancel(within(t))
	// Somebody else is answered meanwhile, so that the word has long arrived.
	f.status = func() (Status, error) { return status, nil }
	if _, _, err := NewClient(path).Status(ctx); err != nil {
		t.Error(err)
	}
	cancel()
	select {
	case err := <-done:
		t.Errorf("it has not ended: %v", err)
	default:
	}
	w.close() // as the end of the process does
	if err := <-done; err != nil {
		t.Error(err)
	}
}
