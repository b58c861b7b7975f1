package router

import (
	"cmp"
	"maps"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is about what is sent to a peer, and what it says of it.

// Dirty returns the peers for which there may be something to take, and forgets them.
func (r *Router) Dirty() []Peer {
	if len(r.dirty) == 0 {
		return nil
	}
	list := slices.Sorted(maps.Keys(r.dirty))
	clear(r.dirty)
	return list
}

// Item is what is to be sent to a peer: a result, or a message and the letter that it
// comes from.
type Item struct {
	Result  *wire.Result
	Message *wire.Message
	Letter  int
}

// Next is what is to be sent next to a peer, if anything is. It is sent by Took.
func (r *Router) Next(p Peer) (it Item, ok bool) {
	pr := r.peers[p]
	if pr == nil || pr.unheard { // its mail would not know of what is on its way
		return Item{}, false
	}
	if len(pr.results) > 0 {
		return Item{Result: &pr.results[0]}, true
	}
	pc := r.next(p, pr)
	if pc == nil {
		return Item{}, false
	}
	l := pc.letter
	return Item{Letter: l.id, Message: &wire.Message{
		Cmd: wire.CmdMessage, N: pc.n, From: l.who, Type: l.typ, Data: l.data, Files: l.files,
	}}, true
}

// next is the first parcel that a peer may have: none of its sender is out that could
// come back, or be handled, after this one.
func (r *Router) next(p Peer, pr *peer) *parcel {
	if r.current(pr.box) != p || r.uncertain(pr.box) {
		return nil
	}
	var before wire.Sender
	waits := false // what comes from it
	for _, pc := range pr.box.queue {
		if who := pc.letter.who; !waits || who != before {
			s := r.peers[pc.letter.from]
			unsure := s != nil && s.unheard // it may have had the result
			before, waits = who, unsure || pr.full(who) || r.out(p, pr.box, who)
		}
		if !waits {
			return pc
		}
	}
	return nil
}

// full: a peer has as much of a sender as there is room left for all: so one that sends a
// lot to somebody slow does not keep others from him.
func (pr *peer) full(who wire.Sender) bool {
	n := 0
	for _, pc := range pr.given {
		if pc.letter.who == who {
			n++
		}
	}
	return n >= Window-len(pr.given)
}

// out: another peer of a box has a parcel of that sender, or this one has one that it may
// give back although it takes parcels again.
func (r *Router) out(p Peer, b *box, who wire.Sender) bool {
	for _, q := range b.peers {
		for _, pc := range r.peers[q].given {
			if pc.letter.who == who && (q != p || pc.early) {
				return true
			}
		}
	}
	return false
}

// Took says that what Next returned is out.
func (r *Router) Took(p Peer) {
	pr := r.peers[p]
	if len(pr.results) > 0 {
		pr.results = pr.results[1:]
		return
	}
	if pc := r.next(p, pr); pc != nil {
		r.give(pc, p)
	}
}

func (r *Router) give(pc *parcel, p Peer) {
	pc.box.remove(pc)
	pc.given, pc.early = p, false
	r.peers[p].given[pc.n] = pc
}

// Refuse says that what Next returned can't be sent to that peer, and never will be.
func (r *Router) Refuse(p Peer, text string) {
	pr := r.peers[p]
	if len(pr.results) > 0 {
		// It is too long: whoever has handled the message has said too much.
		pr.results[0] = wire.Result{Cmd: wire.CmdSent, N: pr.results[0].N, Why: wire.WhyHandler, Text: text}
		return
	}
	if pc := r.next(p, pr); pc != nil {
		pc.box.remove(pc)
		r.done(pc, wire.Result{Why: wire.WhyRefused, Text: text})
	}
}

func (b *box) remove(pc *parcel) {
	b.queue = slices.DeleteFunc(b.queue, func(q *parcel) bool { return q == pc })
}

// Done takes in what a peer says of a parcel. What it does not have is ignored: it may
// be another parent's.
func (r *Router) Done(p Peer, res wire.Result) {
	if pr := r.peers[p]; pr != nil {
		if pc := pr.given[res.N]; pc != nil {
			r.done(pc, res)
			r.wakeBox(pr.box)
		}
	}
}

// Again takes a parcel back that a peer has not begun with.
func (r *Router) Again(p Peer, n int) {
	pr := r.peers[p]
	if pr == nil || pr.given[n] == nil {
		return
	}
	pc := pr.given[n]
	delete(pr.given, n)
	pc.box.putBack(pc)
	r.wakeBox(pc.box)
	r.sweepBox(pc.box)
}

// putBack is for a parcel that its peer has not begun with.
func (b *box) putBack(pc *parcel) {
	pc.given = nobody
	i, _ := slices.BinarySearchFunc(b.queue, pc.n, func(q *parcel, n int) int { return cmp.Compare(q.n, n) })
	b.queue = slices.Insert(b.queue, i, pc)
}

// done ends a parcel, which is in no queue any more.
func (r *Router) done(pc *parcel, res wire.Result) {
	if pc.given != nobody {
		if pr := r.peers[pc.given]; pr != nil {
			delete(pr.given, pc.n)
		}
	}
	l := pc.letter
	l.left--
	if l.to.To == wire.ToGroup || l.to.To == wire.ToAll {
		res.Data = nil // an answer of one of several is of no use
	}
	if l.result.Why == "" {
		l.result = res
	}
	if l.left == 0 {
		r.finish(l, l.result)
	}
}

// finish ends a letter.
func (r *Router) finish(l *letter, res wire.Result) {
	delete(r.letters, l.id)
	r.ended = append(r.ended, l.id)
	pr := r.peers[l.from]
	if pr == nil {
		return
	}
	pr.count(l, -1)
	res.Cmd, res.N = wire.CmdSent, l.n
	pr.results = append(pr.results, res)
	r.dirty[l.from] = true
}

// Ended returns the letters that have ended since the last call.
func (r *Router) Ended() []int {
	list := r.ended
	r.ended = nil
	return list
}
