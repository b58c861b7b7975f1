package state

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"
)

// world is a source, an agent that looks at it and one follower, for TestConverge.
type world struct {
	clock   int64
	truth   int64 // its version
	broken  bool
	book    *book
	m       memory
	began   *entry  // a look at the source that is under way
	answers *answer // an answer that is
}

func (w *world) look() entry {
	return entry{At: w.clock, Version: fmt.Sprint(w.truth), Value: json.RawMessage(fmt.Sprint(w.truth))}
}

func (w *world) deliver() {
	if w.answers != nil {
		w.m.take(*w.answers, w.clock, usable)
		w.answers = nil
	}
}

func (w *world) ask() {
	a := w.book.answer(slot{"web", 1}, w.m.request(), w.clock)
	w.answers = &a
}

var worldSteps = map[string]func(w *world){
	"change": func(w *world) { w.truth++ },
	"back":   func(w *world) { w.truth = max(1, w.truth-1) },
	"begin": func(w *world) {
		if e := w.look(); w.began == nil && !w.broken {
			w.began = &e
		}
	},
	"end": func(w *world) {
		if w.began != nil {
			w.book.found(*w.began)
			w.began = nil
		}
	},
	"look": func(w *world) {
		if w.broken {
			w.book.failed("broken")
		} else {
			w.book.found(w.look())
		}
	},
	"break":   func(w *world) { w.broken = true },
	"mend":    func(w *world) { w.broken = false },
	"ask":     func(w *world) { w.ask() }, // whatever comes of the last one is lost
	"deliver": func(w *world) { w.deliver() },
	"replace": func(w *world) { w.book, w.began = newBook(), nil },
}

// TestConverge tries every sequence of steps up to a length. What the follower knows
// never goes back, its age is never too small, an agent that knows nothing is told, and
// once the source can be seen again a look and a question are enough.
func TestConverge(t *testing.T) {
	var names []string
	for name := range worldSteps {
		names = append(names, name)
	}
	slices.Sort(names)
	depth := 6
	if testing.Short() {
		depth = 4
	}
	n := 0
	var path []string
	// truths[i] is the truth from clock i on.
	var walk func(w world, truths []int64)
	walk = func(w world, truths []int64) {
		n++
		finish(t, w, path)
		if len(path) == depth {
			return
		}
		for _, name := range names {
			next := w
			book := *w.book
			book.slots = map[slot]*subscriber{}
			next.book = &book
			next.clock++
			worldSteps[name](&next)
			path = append(path, name)
			truths := append(truths[:len(truths):len(truths)], next.truth)
			if next.m.at < w.m.at || next.m.good.At < w.m.good.At || next.m.good.At > next.clock {
				t.Fatalf("%v: %+v", path, next.m)
			}
			if v := next.m.good.Version; v != "" && v != fmt.Sprint(truths[next.m.good.At]) {
				t.Fatalf("%v: %+v, but the truth at %d was %d", path, next.m, next.m.good.At, truths[next.m.good.At])
			}
			walk(next, truths)
			path = path[:len(path)-1]
		}
	}
	w := world{truth: 1, book: newBook()}
	walk(w, []int64{1})
	t.Logf("%d states", n)
}

// finish takes a world to where all should be well.
func finish(t *testing.T, w world, path []string) {
	book := *w.book
	book.slots = map[slot]*subscriber{}
	w.book = &book
	w.clock++
	w.deliver()
	// An agent that knows nothing has it from the follower.
	if had := w.m.good.Version; had != "" {
		b := w.book
		w.book = newBook()
		w.ask()
		w.deliver()
		w.ask()
		w.deliver()
		if w.book.cur.Version != had || w.book.cur.At != w.m.good.At || w.m.good.Version != had {
			t.Fatalf("%v: the new agent has %+v, the follower %+v", path, w.book.cur, w.m)
		}
		w.book = b
	}
	w.clock++
	worldSteps["mend"](&w)
	worldSteps["end"](&w)
	worldSteps["look"](&w)
	w.ask()
	w.deliver()
	if w.m.good.Version != fmt.Sprint(w.truth) || w.m.good.At != w.clock || w.m.err != nil {
		t.Fatalf("%v: %+v, the truth is %d", path, w.m, w.truth)
	}
}
