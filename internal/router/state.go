package router

import (
	"encoding/json"
	"maps"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is about other parents: the one before, the next, and one that has decided
// for a moment and died.

// State is all that another parent's router needs. It is versioned by adding fields
// only.
type State struct {
	Last    int            `json:"last"` // number
	Letters []LetterState  `json:"letters,omitempty"`
	Results []ResultsState `json:"results,omitempty"`
	Unheard []wire.Sender  `json:"unheard,omitempty"` // have been asked for their mail
	Doubts  int            `json:"doubts,omitempty"`  // with this number, if that is not 0
}

// LetterState is a letter under way. Its files are known by its ID.
type LetterState struct {
	ID      int             `json:"id"`
	From    wire.Sender     `json:"from,omitzero"`
	N       int             `json:"n,omitempty"` // 0: nobody waits for the result
	To      wire.Address    `json:"to"`
	Type    string          `json:"type"`
	Data    json.RawMessage `json:"data,omitempty"`
	Files   int             `json:"files,omitempty"`
	Parcels []ParcelState   `json:"parcels"`
	Result  *wire.Result    `json:"result,omitempty"` // so far
}

// ParcelState is a parcel that is not done.
type ParcelState struct {
	N   int `json:"n"`
	Box Box `json:"box"`
	// Given is the peer that has it; the parent, if that is the zero value.
	Given *wire.Sender `json:"given,omitempty"`
}

// ResultsState are results that a peer has not been sent yet.
type ResultsState struct {
	To      wire.Sender   `json:"to"`
	Results []wire.Result `json:"results"`
}

// State returns what is under way.
func (r *Router) State() State {
	st := State{Last: r.last, Doubts: r.doubts}
	byLetter := map[*letter][]ParcelState{}
	note := func(pc *parcel) {
		ps := ParcelState{N: pc.n, Box: pc.box.Box}
		if pr := r.peers[pc.given]; pr != nil {
			who := pr.who
			ps.Given = &who
		}
		byLetter[pc.letter] = append(byLetter[pc.letter], ps)
	}
	for _, b := range r.boxes {
		for _, pc := range b.queue {
			note(pc)
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.peers)) {
		for _, pc := range r.peers[p].given {
			note(pc)
		}
		pr := r.peers[p]
		if pr.unheard {
			st.Unheard = append(st.Unheard, pr.who)
		}
		if p != Parent && len(pr.results) > 0 {
			st.Results = append(st.Results, ResultsState{To: pr.who, Results: pr.results})
		}
	}
	for _, id := range slices.Sorted(maps.Keys(r.letters)) {
		l := r.letters[id]
		parcels := byLetter[l]
		slices.SortFunc(parcels, func(a, b ParcelState) int { return a.N - b.N })
		ls := LetterState{ID: l.id, From: l.who, N: l.n, To: l.to, Type: l.typ, Data: l.data, Files: l.files, Parcels: parcels}
		if l.from == nobody {
			ls.N = 0
		}
		if l.result.Why != "" {
			ls.Result = &l.result
		}
		st.Letters = append(st.Letters, ls)
	}
	return st
}

// Restore takes over what was under way at the parent before, whose workers have been
// Put already, and returns the new numbers of its letters, by the old ones. What was
// sent by that parent itself, or by workers that are not here, is delivered, and nobody
// hears of it. What it was handling itself is lost.
func (r *Router) Restore(st State) (letters map[int]int) {
	letters = map[int]int{}
	known := map[wire.Sender]Peer{}
	for p, pr := range r.peers {
		if p != Parent {
			known[pr.who] = p
		}
	}
	for _, who := range st.Unheard {
		if p, ok := known[who]; ok {
			r.peers[p].unheard = true
			r.doubted = st.Last
		}
	}
	// What waits here comes after what has waited there.
	r.last = max(r.last, st.Last)
	r.doubts = max(r.doubts, st.Doubts)
	var here []*parcel
	for _, b := range r.boxes {
		here = append(here, b.queue...)
		b.queue = nil
	}
	slices.SortFunc(here, func(a, b *parcel) int { return a.n - b.n })
	var lost []*parcel
	for _, ls := range st.Letters {
		r.last++
		l := &letter{
			id: r.last, from: nobody, who: ls.From, n: ls.N, to: ls.To, typ: ls.Type, data: ls.Data, files: ls.Files,
			left: len(ls.Parcels),
		}
		letters[ls.ID] = l.id
		r.letters[l.id] = l
		if p, ok := known[ls.From]; ok && ls.N > 0 {
			l.from = p
			r.peers[p].count(l, 1)
		}
		if ls.Result != nil {
			l.result = *ls.Result
		}
		if l.left == 0 {
			r.finish(l, wire.Result{Why: wire.WhyLost})
		}
		for _, ps := range ls.Parcels {
			pc := &parcel{n: ps.N, letter: l, box: r.box(ps.Box), given: nobody}
			switch {
			case ps.Given == nil:
				pc.box.queue = append(pc.box.queue, pc)
			case known[*ps.Given] != Parent:
				r.give(pc, known[*ps.Given])
				pc.early = true // that parent may have seen it leave
			default:
				lost = append(lost, pc)
			}
		}
	}
	for _, b := range r.boxes {
		slices.SortFunc(b.queue, func(a, b *parcel) int { return a.n - b.n })
	}
	for _, pc := range here {
		r.last++
		pc.n = r.last
		pc.box.queue = append(pc.box.queue, pc)
	}
	for _, rs := range st.Results {
		if p, ok := known[rs.To]; ok {
			r.peers[p].results = append(r.peers[p].results, rs.Results...)
			r.dirty[p] = true
		}
	}
	for _, pc := range lost {
		r.done(pc, wire.Result{Why: wire.WhyLost})
	}
	r.trim()
	for _, b := range r.boxes {
		r.wakeBox(b)
		r.sweepBox(b)
	}
	return letters
}

// gap is more numbers than a parent uses in the moment between its commit and its death.
const gap = 1 << 24

// Doubt says that another parent may have decided since State: what a worker has is not
// known before it has told its Mail. What that parent has given to workers that are not
// known here can't be known at all: it must give them nothing before this one has let go.
// Who is what to ask them.
func (r *Router) Doubt() {
	r.doubts++
	r.doubted = r.last
	r.last += gap
	r.loseWaiting(r.peers[Parent].box, r.doubted) // it may have handled them itself
	for p, pr := range r.peers {
		if p == Parent {
			continue
		}
		pr.unheard = true
		for _, pc := range pr.given {
			pc.early = true // the other one may have seen it leave
		}
	}
}

// Doubtful says that p has had another parent, of which nothing is known here: what it has
// and has sent it tells first, by its Mail.
func (r *Router) Doubtful(p Peer) {
	if pr := r.peers[p]; pr != nil {
		pr.unheard = true
	}
}

// Who is the question for a worker what it does, and what it has if that is not known. It
// may be asked again: of several answers to one question the first counts.
func (r *Router) Who(p Peer) wire.Who {
	who := wire.Who{Cmd: wire.CmdWho}
	if r.Doubts(p) {
		who.Mail, who.N = true, r.doubts
	}
	return who
}

// Mail compares what a worker says of its messages with what is known here, after Doubt.
// What does not fit was the other parent's: of that nothing is known. An answer to an
// earlier Who, whose number is another, is too old.
func (r *Router) Mail(p Peer, mail wire.Mail) {
	pr := r.peers[p]
	if pr == nil || !pr.unheard || mail.N != 0 && mail.N != r.doubts {
		return
	}
	pr.unheard = false
	sent, have, done := set(mail.Sent), set(mail.Have), set(mail.Done)
	// Its own letters.
	pr.results = slices.DeleteFunc(pr.results, func(res wire.Result) bool { return !sent[res.N] })
	known := map[int]bool{}
	for _, res := range pr.results {
		known[res.N] = true
	}
	for _, l := range r.letters {
		switch {
		case l.from != p:
		case sent[l.n]:
			known[l.n] = true
		default: // it has had its result
			l.from = nobody
			pr.count(l, -1)
			r.withdraw(l)
		}
	}
	for _, n := range mail.Sent {
		if !known[n] && len(pr.results)+pr.letters < Window {
			known[n] = true
			pr.results = append(pr.results, wire.Result{Cmd: wire.CmdSent, N: n, Why: wire.WhyLost})
		}
	}
	r.dirty[p] = true
	// What it was given.
	gone := map[int]*parcel{}
	for n, pc := range pr.given {
		if !have[n] {
			gone[n] = pc
		}
	}
	for _, pc := range slices.Clone(pr.box.queue) {
		switch {
		case have[pc.n]:
			r.give(pc, p)
			pc.early = true
		case done[pc.n] || pc.n <= mail.Forgot:
			pc.box.remove(pc)
			gone[pc.n] = pc
		}
	}
	r.lose(gone)
	r.wake()
	r.sweepBox(pr.box)
}

func set(numbers []int) map[int]bool {
	m := make(map[int]bool, len(numbers))
	for _, n := range numbers {
		m[n] = true
	}
	return m
}

// Doubts reports whether a worker has still to tell its Mail.
func (r *Router) Doubts(p Peer) bool {
	pr := r.peers[p]
	return pr != nil && pr.unheard
}

// Wake says that there is room on the way to a peer again.
func (r *Router) Wake(p Peer) {
	if r.peers[p] != nil {
		r.dirty[p] = true
	}
}
