package state

import (
	"cmp"
	"time"
)

// maxNotices is how many followers are being told at a time. It leaves half of the
// messages that the process may have under way to others.
const maxNotices = 32

// recallEvery is how often followers are asked at most whether they remember.
const recallEvery = time.Second

// book is what an agent knows of a value and of those who follow it: the decisions, pure.
type book struct {
	cur   entry // Version "": there is none
	own   bool  // it comes from the source, and not from a follower's memory
	seq   int   // counts the changes of cur
	err   string
	slots map[slot]*subscriber
	under int // notices under way
	// forgot is a group from which somebody has asked while there was nothing: others
	// there may remember. asking: they are being told of it.
	forgot   string
	asking   bool
	recallAt int64 // when they were told last
}

// slot is where a follower is. Whichever of its processes gets a notice, the others ask
// by themselves.
type slot struct {
	group string
	n     int
}

type subscriber struct {
	told int  // seq at the last notice
	busy bool // a notice is under way
}

func newBook() *book { return &book{slots: map[slot]*subscriber{}} }

// found takes in what the source has seen, and says whether that is another value. What
// was looked at before something else that is known is out of date.
func (b *book) found(e entry) (changed bool) {
	if b.cur.Version != "" && e.At <= b.cur.At {
		return false
	}
	b.err, b.own = "", true
	if e.Version == b.cur.Version {
		b.cur.At = e.At
		return false
	}
	b.cur = e
	b.seq++
	return true
}

// failed takes in that the source can't see anything.
func (b *book) failed(why string) { b.err = why }

// answer answers a follower. One without a slot gets no notices: it is in this process,
// or the parent.
func (b *book) answer(from slot, r request, now int64) (a answer) {
	if o := r.Offer; o != nil && !b.own && o.Version != "" && len(o.Value) > 0 && o.At > b.cur.At {
		b.cur = *o
		b.cur.At = min(o.At, now)
		b.seq++
	}
	if from != (slot{}) && b.slots[from] == nil {
		b.slots[from] = &subscriber{told: b.seq}
	}
	a = answer{entry: b.cur, Err: b.err}
	switch b.cur.Version {
	case "":
		a.None = true
		if now-b.recallAt >= int64(recallEvery) { // those who don't remember ask, too, when they are told
			b.forgot, b.recallAt = from.group, now
		}
	case r.Version:
		a.Value = nil
	}
	return a
}

// next is a follower to be told that there is something new. It is told once, and again
// if there is something newer when that notice has ended.
func (b *book) next() (s slot, ok bool) {
	if b.under >= maxNotices {
		return s, false
	}
	for t, sub := range b.slots {
		if sub.busy || sub.told == b.seq {
			continue
		}
		if !ok || cmp.Or(cmp.Compare(t.group, s.group), cmp.Compare(t.n, s.n)) < 0 {
			s, ok = t, true
		}
	}
	if ok {
		b.slots[s].busy, b.slots[s].told = true, b.seq
		b.under++
	}
	return s, ok
}

// noticed says that a notice has ended; gone that nobody follows there, until somebody
// asks from there again.
func (b *book) noticed(s slot, gone bool) {
	b.under--
	if gone {
		delete(b.slots, s)
	} else {
		b.slots[s].busy = false
	}
}

// recall is a group whose followers are to be told to ask, if there is one: they are told
// that there is nothing, and offer what they have.
func (b *book) recall() (group string, ok bool) {
	if b.forgot == "" || b.asking || b.cur.Version != "" {
		return "", false
	}
	group, b.forgot, b.asking = b.forgot, "", true
	return group, true
}

// recalled says that they have been told.
func (b *book) recalled() { b.asking = false }
