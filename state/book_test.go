package state

import (
	"fmt"
	"testing"
)

// TestNotices tries every sequence of changes, questions, notices and their ends, of two
// followers: one notice at a time for each, never more than there were changes, and when
// all have ended everybody was told of the last change.
func TestNotices(t *testing.T) {
	slots := []slot{{"web", 1}, {"web", 2}}
	type step struct {
		name string
		do   func(b *book, clock int64, told map[slot]int) bool // false: not now
	}
	steps := []step{{"change", func(b *book, clock int64, _ map[slot]int) bool {
		return b.found(entry{At: clock, Version: fmt.Sprint(clock)})
	}}, {"back", func(b *book, clock int64, _ map[slot]int) bool {
		return b.found(entry{At: clock, Version: "first"})
	}}, {"notice", func(b *book, _ int64, told map[slot]int) bool {
		s, ok := b.next()
		if ok {
			told[s]++
		}
		return ok
	}}}
	for _, s := range slots {
		steps = append(steps,
			step{fmt.Sprint("ask ", s), func(b *book, clock int64, _ map[slot]int) bool {
				_, asked := b.slots[s]
				b.answer(s, request{}, clock)
				return !asked
			}},
			step{fmt.Sprint("ended ", s), func(b *book, _ int64, _ map[slot]int) bool {
				if b.slots[s] == nil || !b.slots[s].busy {
					return false
				}
				b.noticed(s, false)
				return true
			}},
			step{fmt.Sprint("gone ", s), func(b *book, _ int64, _ map[slot]int) bool {
				if b.slots[s] == nil || !b.slots[s].busy {
					return false
				}
				b.noticed(s, true)
				return true
			}})
	}
	n := 0
	var path []string
	var walk func(b *book, told map[slot]int, changes int)
	walk = func(b *book, told map[slot]int, changes int) {
		n++
		busy := 0
		for s, sub := range b.slots {
			if sub.busy {
				busy++
			}
			if told[s] > changes {
				t.Fatalf("%v: %v was told %d times of %d changes", path, s, told[s], changes)
			}
		}
		if busy != b.under {
			t.Fatalf("%v: %d under way, not %d", path, busy, b.under)
		}
		drainNotices(t, path, copyBook(b))
		if len(path) == 7 {
			return
		}
		for _, s := range steps {
			next, toldNext := copyBook(b), map[slot]int{}
			for k, v := range told {
				toldNext[k] = v
			}
			if !s.do(next, int64(len(path)+1), toldNext) {
				continue
			}
			c := changes
			if s.name == "change" || s.name == "back" {
				c++
			}
			path = append(path, s.name)
			walk(next, toldNext, c)
			path = path[:len(path)-1]
		}
	}
	walk(newBook(), map[slot]int{}, 0)
	t.Logf("%d states", n)
}

func drainNotices(t *testing.T, path []string, b *book) {
	for i := 0; ; i++ {
		if s, ok := b.next(); ok {
			if !b.slots[s].busy {
				t.Fatalf("%v: %v is told, and is not", path, s)
			}
			continue
		}
		ended := false
		for s, sub := range b.slots {
			if sub.busy {
				b.noticed(s, false)
				ended = true
			}
		}
		if !ended {
			break
		}
		if i > 10 {
			t.Fatalf("%v: it does not end", path)
		}
	}
	for s, sub := range b.slots {
		if sub.told != b.seq || sub.busy {
			t.Fatalf("%v: %v was told of %d, and not of %d", path, s, sub.told, b.seq)
		}
	}
}

func copyBook(b *book) *book {
	c := *b
	c.slots = map[slot]*subscriber{}
	for s, sub := range b.slots {
		d := *sub
		c.slots[s] = &d
	}
	return &c
}

// TestNoticesBounded: of many followers only so many are told at a time, and all in
// their turn.
func TestNoticesBounded(t *testing.T) {
	b := newBook()
	const n = 3*maxNotices + 1
	for i := range n {
		b.answer(slot{"web", i + 1}, request{}, 1)
	}
	b.answer(slot{}, request{}, 1)
	b.found(entry{At: 2, Version: "a"})
	var busy []slot
	told := map[slot]bool{}
	for len(told) < n {
		for s, ok := b.next(); ok; s, ok = b.next() {
			busy = append(busy, s)
			told[s] = true
		}
		if len(busy) == 0 || len(busy) > maxNotices {
			t.Fatalf("%d at a time, after %d", len(busy), len(told))
		}
		b.noticed(busy[0], false)
		busy = busy[1:]
	}
	if len(told) != n || told[slot{}] {
		t.Errorf("%d were told", len(told))
	}
}

// TestFound: what an agent takes in from its source, and from those who remember.
func TestFound(t *testing.T) {
	remembered := at(5, "a").entry
	asks := func(b *book, o *entry) answer { return b.answer(slot{}, request{Version: "a", Offer: o}, 10) }

	b := newBook()
	b.failed("no store")
	if a := asks(b, nil); !a.None || a.Err != "no store" || a.Version != "" {
		t.Errorf("nothing: %+v", a)
	}
	if a := asks(b, &remembered); a.None || a.Version != "a" || a.Value != nil || a.At != 5 || a.Err != "no store" {
		t.Errorf("remembered: %+v", a)
	}
	if a := asks(b, &entry{At: 4, Version: "b", Value: []byte("1")}); a.Version != "a" {
		t.Errorf("an older memory is taken: %+v", a)
	}
	if a := asks(b, &entry{At: 1000, Version: "b", Value: []byte("1")}); a.Version != "b" || a.At != 10 || len(a.Value) == 0 {
		t.Errorf("of the future: %+v", a)
	}
	if a := asks(b, &entry{At: 1000}); a.Version != "b" {
		t.Errorf("nothing was offered: %+v", a)
	}
	if b.found(entry{At: 9, Version: "c"}) || b.cur.Version != "b" {
		t.Errorf("seen before what others have seen: %+v", b)
	}
	if !b.found(entry{At: 11, Version: "c"}) || b.err != "" {
		t.Errorf("seen: %+v", b)
	}
	if a := asks(b, &entry{At: 20, Version: "d", Value: []byte("1")}); a.Version != "c" {
		t.Errorf("a memory is taken for what the source says: %+v", a)
	}
	if b.found(entry{At: 12, Version: "c"}) || b.cur.At != 12 {
		t.Errorf("the same: %+v", b)
	}
	b.failed("no store")
	if b.found(entry{At: 11, Version: "b"}); b.err == "" || b.cur.Version != "c" {
		t.Errorf("late: %+v", b)
	}
}

// TestGone: who follows no more is told nothing, until somebody there asks again.
func TestGone(t *testing.T) {
	b := newBook()
	web := slot{"web", 1}
	b.answer(web, request{}, 1)
	b.found(entry{At: 2, Version: "a"})
	if s, ok := b.next(); s != web || !ok {
		t.Fatalf("%v, %v", s, ok)
	}
	b.noticed(web, true)
	b.found(entry{At: 3, Version: "b"})
	if s, ok := b.next(); ok || b.under != 0 {
		t.Fatalf("%v is told", s)
	}
	b.answer(web, request{}, 3)
	b.found(entry{At: 4, Version: "c"})
	if s, ok := b.next(); s != web || !ok {
		t.Fatalf("%v, %v", s, ok)
	}
}

// TestRecall: when somebody asks and there is nothing, his group is asked, once a second.
func TestRecall(t *testing.T) {
	b := newBook()
	sec := int64(recallEvery)
	for i, step := range []struct {
		at    int64
		group string // who asks
		want  string // who is asked
		ended bool
	}{
		{sec, "web", "web", false},
		{2 * sec, "web", "", true}, // it is being asked
		{2*sec + 1, "jobs", "web", true},
		{4 * sec, "jobs", "jobs", true},
		{4*sec + 1, "jobs", "", false},
		{6 * sec, "", "", false}, // this process itself
	} {
		b.answer(slot{step.group, 1}, request{}, step.at)
		group, ok := b.recall()
		if group != step.want || ok != (step.want != "") {
			t.Errorf("%d: %q, %v", i, group, ok)
		}
		if step.ended {
			b.recalled()
		}
	}
	b.answer(slot{"web", 1}, request{}, 10*sec)
	b.found(entry{At: 10 * sec, Version: "a"})
	if group, ok := b.recall(); ok {
		t.Errorf("%q is asked, and there is something", group)
	}
}
