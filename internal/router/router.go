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
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
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

// End says that a worker is no more: of what it had nothing is known.
func (r *Router) End(p Peer) {
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
	r.lose(pr.given)
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

// Post takes in what a peer sends, and returns the letter's number, by which the caller
// knows its files until Ended has it. With ErrOverrun nothing was taken in.
func (r *Router) Post(from Peer, m wire.Message) (id int, err error) {
	pr := r.peers[from]
	if pr == nil {
		return 0, fmt.Errorf("router: no peer %d", from)
	}
	n, times := pr.letters+len(pr.results), 1
	if pr.unheard {
		times = 2 // some of those that are known may have had their results
	}
	more := pr.bytes+len(m.Data) > times*WindowBytes || pr.files+m.Files > times*Window
	if n >= times*Window || pr.letters > 0 && more {
		return 0, fmt.Errorf("router: %w: %d, with %d bytes and %d files", ErrOverrun, n, pr.bytes, pr.files)
	}
	r.last++
	l := &letter{id: r.last, from: from, who: pr.who, n: m.N, to: m.To, typ: m.Type, data: m.Data, files: m.Files}
	r.letters[l.id] = l
	pr.count(l, 1)
	if text := wrong(m); text != "" {
		r.finish(l, wire.Result{Why: wire.WhyRefused, Text: text})
		return l.id, nil
	}
	boxes, why := r.resolve(m.To)
	l.left = len(boxes)
	if len(boxes) == 0 {
		r.finish(l, wire.Result{Why: why})
		return l.id, nil
	}
	for _, key := range boxes {
		r.last++
		b := r.box(key)
		b.queue = append(b.queue, &parcel{n: r.last, letter: l, box: b, given: nobody})
	}
	for _, key := range boxes {
		b := r.boxes[key]
		r.wakeBox(b)
		r.sweepBox(b)
	}
	return l.id, nil
}

// count notes that a peer has n letters like l more.
func (pr *peer) count(l *letter, n int) {
	pr.letters += n
	pr.bytes += n * len(l.data)
	pr.files += n * l.files
}

// wrong says what no Endpoint would send.
func wrong(m wire.Message) string {
	switch {
	case len(m.Type) > wire.MessageTypeSize:
		return fmt.Sprintf("its type has %d bytes, the most is %d", len(m.Type), wire.MessageTypeSize)
	case m.N < 1:
		return fmt.Sprintf("its number is %d, they count from 1", m.N)
	case m.Files < 0 || m.Files > wire.MessageFiles:
		return fmt.Sprintf("%d files, the most is %d", m.Files, wire.MessageFiles)
	}
	return ""
}

// resolve says whose boxes an address means, and, if there are none, why. One to several
// means those who may know what a message is.
func (r *Router) resolve(to wire.Address) (boxes []Box, why wire.Why) {
	group := func(name string) {
		for n := 1; n <= r.counts[name]; n++ {
			if b := r.boxes[Box{name, n}]; b == nil || !r.mute(b) {
				boxes = append(boxes, Box{name, n})
			}
		}
	}
	switch to.To {
	case wire.ToParent:
		return []Box{{}}, ""
	case wire.ToSlot:
		if to.Slot < 1 || to.Slot > r.counts[to.Group] {
			return nil, wire.WhyAddress
		}
		return []Box{{to.Group, to.Slot}}, ""
	case wire.ToAll:
		for _, name := range slices.Sorted(maps.Keys(r.counts)) {
			group(name)
		}
		return boxes, wire.WhyUnhandled
	case wire.ToGroup, wire.ToAny:
		if r.counts[to.Group] == 0 {
			return nil, wire.WhyAddress
		}
		group(to.Group)
		if to.To == wire.ToGroup || len(boxes) == 0 {
			return boxes, wire.WhyUnhandled
		}
		absent := func(b Box) bool { return r.boxes[b] == nil || r.current(r.boxes[b]) == nobody }
		if ready := slices.DeleteFunc(slices.Clone(boxes), absent); len(ready) > 0 {
			boxes = ready
		}
		r.turns[to.Group]++
		n := r.turns[to.Group] % len(boxes)
		return boxes[n : n+1], ""
	}
	return nil, wire.WhyAddress
}

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
	pc.given = nobody
	i, _ := slices.BinarySearchFunc(pc.box.queue, n, func(q *parcel, n int) int { return cmp.Compare(q.n, n) })
	pc.box.queue = slices.Insert(pc.box.queue, i, pc)
	r.wakeBox(pc.box)
	r.sweepBox(pc.box)
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
