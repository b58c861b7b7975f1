package router

import (
	"cmp"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is about who takes what is in a box.

// current is the peer that gets a box's parcels, or nobody: of those that serve, the
// youngest.
func (r *Router) current(b *box) Peer {
	best := nobody
	for _, p := range b.peers {
		if r.peers[p].phase == Serves && (best == nobody || younger(r.peers[p].who, r.peers[best].who)) {
			best = p
		}
	}
	return best
}

func younger(a, b wire.Sender) bool {
	return cmp.Or(cmp.Compare(a.Generation, b.Generation), cmp.Compare(a.ID, b.ID)) > 0
}

// mute: those that serve a box do not know what a message is.
func (r *Router) mute(b *box) bool {
	mute := false
	for _, p := range b.peers {
		switch r.peers[p].phase {
		case Starts, Serves:
			return false
		case Mute:
			mute = true
		}
	}
	return mute
}

// uncertain: some of what waits in a box may be with a peer.
func (r *Router) uncertain(b *box) bool {
	return slices.ContainsFunc(b.peers, func(p Peer) bool { return r.peers[p].unheard })
}

// hopeless says why nobody will take what is in a box, or "".
func (r *Router) hopeless(b *box) wire.Why {
	if b.Box == (Box{}) {
		return ""
	}
	if r.uncertain(b) {
		return ""
	}
	if r.mute(b) {
		return wire.WhyUnhandled
	}
	if !r.stopping && b.Slot <= r.counts[b.Group] {
		return "" // if there is nobody, somebody will come
	}
	for _, p := range b.peers {
		if ph := r.peers[p].phase; ph == Serves || ph == Starts {
			return ""
		}
	}
	return wire.WhyGone
}

// sweep ends what nobody will take.
func (r *Router) sweep() {
	for _, b := range r.boxes {
		r.sweepBox(b)
	}
}

func (r *Router) sweepBox(b *box) {
	why := r.hopeless(b)
	if why == "" {
		return
	}
	queue := b.queue
	b.queue = nil
	for _, pc := range queue {
		r.done(pc, wire.Result{Why: why})
	}
	if len(b.peers) == 0 {
		delete(r.boxes, b.Box)
	}
}

func (r *Router) wake() {
	for _, b := range r.boxes {
		r.wakeBox(b)
	}
}

// wakeBox: its peer may have something to take.
func (r *Router) wakeBox(b *box) {
	if p := r.current(b); p != nobody && len(b.queue) > 0 {
		r.dirty[p] = true
	}
}
