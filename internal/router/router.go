// Package router decides which way messages go: from a worker or the parent to slots, to
// whichever worker is in a slot by then, and the results back. It is pure: it does no
// I/O and knows no time, and all of it belongs to the parent's loop.
//
// A letter is what somebody has sent, and a parcel is a letter's copy for one slot. A
// parcel waits in its slot's box until a worker that serves there takes it, and is that
// worker's until it is done with it. Every letter ends in one result for its sender:
// the first of its parcels that was not handled well, or the answer. What a worker has
// sent that has died is delivered, as far as there is room for it, and nobody hears of
// it.
package router

import (
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

const (
	// Window is how many letters of a peer may be under way, with how many files, and how
	// many parcels it may have.
	Window = wire.MessageWindow
	// WindowBytes bounds the data of a peer's letters that are under way, except that
	// there may always be one.
	WindowBytes = wire.MessageBytes
)

// ErrOverrun: a peer sends more than it may.
var ErrOverrun = errors.New("more messages under way than there may be")

// Peer is one incarnation of a worker, by its number, which is never 0; or the Parent.
type Peer int

// Parent is this process.
const Parent Peer = 0

// nobody was a peer and is none any more.
const nobody Peer = -1

// Phase is what a peer does with messages to its slot.
type Phase int

const (
	Starts Phase = iota // it will serve, and gets none yet
	Serves              // it gets them
	Leaves              // it gets none any more, and may be done with those that it has
	Mute                // it does not know what a message is
)

// Box is a slot of a group; the zero value is the parent's.
type Box struct {
	Group string `json:"group,omitempty"`
	Slot  int    `json:"slot,omitempty"`
}

// Router is the exchange. Make it by New.
type Router struct {
	counts   map[string]int // slots by group
	stopping bool
	peers    map[Peer]*peer
	boxes    map[Box]*box
	letters  map[int]*letter
	last     int            // the number of the last letter, or parcel
	doubts   int            // how often Doubt was called, here and at the parents before
	doubted  int            // another parent may have given parcels up to this number to those unheard
	turns    map[string]int // of addresses to any
	dirty    map[Peer]bool  // may have something to take
	ended    []int          // letters
}

type peer struct {
	who     wire.Sender
	box     *box
	phase   Phase
	unheard bool // what it has is not known yet
	given   map[int]*parcel
	results []wire.Result
	letters int // of its own, under way
	bytes   int // of their data
	files   int // with them
}

type box struct {
	Box
	queue []*parcel // by number
	peers []Peer
}

type letter struct {
	id     int
	from   Peer
	who    wire.Sender
	n      int // the sender's number
	to     wire.Address
	typ    string
	data   json.RawMessage
	files  int
	left   int // parcels that are not done
	result wire.Result
}

type parcel struct {
	n      int
	letter *letter
	box    *box
	given  Peer // nobody: it waits
	early  bool // it was given before its peer stopped taking any, or by another parent
}

// New returns a router in which there is only the parent.
func New() *Router {
	r := &Router{
		counts: map[string]int{}, peers: map[Peer]*peer{}, boxes: map[Box]*box{}, letters: map[int]*letter{},
		turns: map[string]int{}, dirty: map[Peer]bool{},
	}
	r.add(Parent, wire.Sender{}, Serves)
	return r
}

// NumbersFrom makes letters and parcels count from n: those of another parent, and what
// this one has given to workers before it took over, must not meet.
func (r *Router) NumbersFrom(n int) { r.last = n }

// Groups says how many slots there are of each group.
func (r *Router) Groups(counts map[string]int) {
	r.counts = maps.Clone(counts)
	maps.DeleteFunc(r.turns, func(name string, _ int) bool { return counts[name] == 0 })
	r.sweep()
}

// Stop says that no worker follows another any more.
func (r *Router) Stop() {
	r.stopping = true
	r.sweep()
}

// Stopping reports whether Stop was called.
func (r *Router) Stopping() bool { return r.stopping }

// Put makes a worker known, or says what has become of it.
func (r *Router) Put(p Peer, who wire.Sender, phase Phase) {
	if pr := r.peers[p]; pr == nil {
		r.add(p, who, phase)
	} else if pr.phase == phase {
		return
	} else {
		pr.phase = phase
		for _, pc := range pr.given {
			pc.early = true
		}
	}
	b := r.peers[p].box
	r.wakeBox(b)
	r.sweepBox(b)
}

func (r *Router) add(p Peer, who wire.Sender, phase Phase) {
	b := r.box(Box{who.Group, who.Slot})
	b.peers = append(b.peers, p)
	r.peers[p] = &peer{who: who, box: b, phase: phase, given: map[int]*parcel{}}
}

func (r *Router) box(key Box) *box {
	b := r.boxes[key]
	if b == nil {
		b = &box{Box: key}
		r.boxes[key] = b
	}
	return b
}

// End says that a worker is no more. If all that it has said was heard, it can have begun
// with one parcel of each sender, the first that it was not done with: of that one
// nothing is known, and the others are for its successor. Otherwise nothing is known of
// any.
func (r *Router) End(p Peer, heard bool) {
	pr := r.peers[p]
	if pr == nil {
		return
	}
	delete(r.peers, p)
	delete(r.dirty, p)
	b := pr.box
	b.peers = slices.DeleteFunc(b.peers, func(q Peer) bool { return q == p })
	for _, l := range r.letters {
		if l.from == p {
			l.from = nobody
		}
	}
	begun := map[wire.Sender]bool{}
	for _, n := range slices.Sorted(maps.Keys(pr.given)) {
		pc := pr.given[n]
		if heard && begun[pc.letter.who] {
			b.putBack(pc)
			continue
		}
		begun[pc.letter.who] = true
		r.done(pc, wire.Result{Why: wire.WhyLost})
	}
	if pr.unheard {
		r.loseWaiting(b, r.doubted)
	}
	r.trim()
	r.wake() // what it has sent may have waited for its mail
	r.sweepBox(b)
}

// trim bounds what the dead have left: a slot whose workers send to somebody who never
// comes, and die, must not fill this process. Of each slot's it keeps the youngest that
// one peer could have sent, and withdraws the others.
func (r *Router) trim() {
	left := map[Box]*peer{}
	for _, id := range slices.Backward(slices.Sorted(maps.Keys(r.letters))) {
		l := r.letters[id]
		if l.from != nobody {
			continue
		}
		key := Box{l.who.Group, l.who.Slot}
		if left[key] == nil {
			left[key] = &peer{}
		}
		sum := left[key]
		sum.count(l, 1)
		if sum.letters > Window || sum.letters > 1 && (sum.bytes > WindowBytes || sum.files > Window) {
			r.withdraw(l)
		}
	}
}

// withdraw takes a letter for which nobody waits out of the boxes.
func (r *Router) withdraw(l *letter) {
	for _, b := range r.boxes {
		for _, pc := range slices.Clone(b.queue) {
			if pc.letter == l {
				b.remove(pc)
				r.done(pc, wire.Result{Why: wire.WhyLost})
			}
		}
	}
}

// lose ends parcels of which nothing is known any more.
func (r *Router) lose(given map[int]*parcel) {
	for _, n := range slices.Sorted(maps.Keys(given)) {
		r.done(given[n], wire.Result{Why: wire.WhyLost})
	}
}

// loseWaiting ends parcels that wait and may have been given to somebody, of whom nothing
// is known.
func (r *Router) loseWaiting(b *box, upTo int) {
	for _, pc := range slices.Clone(b.queue) {
		if pc.n <= upTo {
			b.remove(pc)
			r.done(pc, wire.Result{Why: wire.WhyLost})
		}
	}
}
