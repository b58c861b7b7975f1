package router

import (
	"encoding/json"
	"maps"
	"slices"
)

// This file is the ends of the model's lives, and what is looked at then.

// die ends a worker; its parent has heard all that it has said, or not.
func (w *world) die(p *proc) {
	heard := true
	for len(p.out) > 0 && heard {
		if heard = w.chance(90); heard {
			w.hear(p)
		}
	}
	delete(w.procs, p.peer)
	for from := range p.running {
		delete(w.running, lane{from, Box{p.who.Group, p.who.Slot}})
	}
	k := w.of(p)
	delete(k.known, p.peer)
	delete(k.waiting, p.peer)
	k.r.End(p.peer, heard)
	k.flush()
}

// upgrade begins, ends, or takes back an upgrade.
func (w *world) upgrade() {
	if w.trial == nil {
		w.trial = newPark(w)
		w.trial.r.Groups(w.counts)
		for range w.rnd.IntN(3) {
			w.spawn(true)
		}
		return
	}
	old, next := w.park, w.trial
	if w.chance(30) { // it fails before the commit
		w.abandon(next)
		w.trial = nil
		return
	}
	// What the new one's workers have sent to it waits there.
	raw, err := json.Marshal(old.r.State())
	if err != nil {
		w.fail("%v", err)
	}
	var st State
	if err := json.Unmarshal(raw, &st); err != nil {
		w.fail("%v", err)
	}
	for p, ph := range old.known {
		if p != Parent {
			next.known[p] = ph
			next.r.Put(p, w.procs[p].who, ph)
		}
	}
	next.r.Groups(w.counts)
	for from, to := range next.r.Restore(st) {
		next.files[to] = old.files[from]
	}
	if len(st.Letters) != len(old.files) {
		w.fail("%d letters under way, and %d in the state", len(old.files), len(st.Letters))
	}
	w.park, w.trial = next, nil
	var fresh []*proc
	for _, p := range w.procs {
		if p.trial {
			p.trial = false
			fresh = append(fresh, p)
		}
	}
	next.flush()
	if w.chance(50) {
		w.sum.upgrades++
		w.generation++
		old.own.forgetIn(w)
		return
	}
	// It decides for a moment, gives its own workers nothing, and dies.
	w.sum.doubts++
	w.doubted = true
	for range w.rnd.IntN(200) {
		switch w.rnd.IntN(5) {
		case 0:
			if p := w.sender(); p != nil {
				w.post(p)
			}
		case 1:
			if p := w.pick(any1); p != nil {
				w.arrive(p)
			}
		case 2:
			if p := w.pick(func(p *proc) bool { return !slices.Contains(fresh, p) || next.known[p.peer] != Starts }); p != nil {
				w.hear(p)
			}
		default:
			w.work(w.anyone())
		}
	}
	// What it was told of phases the next parent asks for.
	for p, ph := range next.known {
		if p != Parent {
			old.known[p] = ph
		}
	}
	w.park = old
	next.own.forgetIn(w)
	for _, p := range fresh {
		if w.procs[p.peer] != nil {
			delete(w.procs, p.peer)
			delete(old.known, p.peer)
			for from := range p.running {
				delete(w.running, lane{from, Box{p.who.Group, p.who.Slot}})
			}
		}
	}
	old.r.Doubt()
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		old.put(w.procs[p], old.known[p])
		w.procs[p].in = append(w.procs[p].in, old.r.Who(p))
	}
	old.flush()
}

// abandon ends a parent that never decided, and its workers.
func (w *world) abandon(k *park) {
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		if w.procs[p].trial {
			w.die(w.procs[p])
		}
	}
}

// forgetIn: a parent's own handlers die with it.
func (p *proc) forgetIn(w *world) {
	for from := range p.running {
		delete(w.running, lane{from, Box{}})
	}
}

// settle lets everything happen that is under way, and looks for what is stuck.
func (w *world) settle() {
	for busy := true; busy; {
		busy = false
		for p := range w.park.waiting {
			delete(w.park.waiting, p)
			w.park.serve(p, false)
		}
		w.park.flush()
		for _, id := range slices.Sorted(maps.Keys(w.procs)) {
			p := w.procs[id]
			for len(p.in) > 0 {
				w.arrive(p)
				busy = true
			}
			for len(p.out) > 0 {
				w.hear(p)
				busy = true
			}
			for len(p.have)+len(p.running) > 0 {
				w.work(p)
				busy = true
			}
		}
		for own := w.park.own; len(own.have)+len(own.running) > 0; {
			w.work(own)
			busy = true
		}
	}
	r := w.park.r
	for _, b := range r.boxes {
		if c := r.current(b); c != nobody && len(b.queue) > 0 {
			w.fail("%d parcels are stuck in %v", len(b.queue), b.Box)
		}
	}
	for id, pr := range r.peers {
		if len(pr.given) > 0 || len(pr.results) > 0 {
			w.fail("%v has %d parcels and %d results left", pr.who, len(pr.given), len(pr.results))
		}
		p := w.park.own
		if id != Parent {
			p = w.procs[id]
		}
		if len(p.sent) != pr.letters {
			w.fail("%v waits for %d results, of %d letters", pr.who, len(p.sent), pr.letters)
		}
	}
}

// finish stops the service: nothing is left of it, and everybody has heard of everything.
func (w *world) finish() {
	if w.trial != nil {
		w.abandon(w.trial)
		w.trial = nil
	}
	w.park.r.Stop()
	w.park.flush()
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		w.park.put(w.procs[p], Leaves)
		w.procs[p].in = append(w.procs[p].in, drain{})
	}
	w.settle()
	for p, pr := range w.procs {
		if len(pr.sent) > 0 {
			w.fail("%d has not heard of %d messages", p, len(pr.sent))
		}
	}
	if n := len(w.park.own.sent); n > 0 {
		w.fail("the parent has not heard of %d messages", n)
	}
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		w.die(w.procs[p])
	}
	r := w.park.r
	if len(r.boxes) != 1 || len(r.peers) != 1 || len(r.letters) != 0 || len(r.dirty) != 0 || len(w.park.files) != 0 || len(r.ended) != 0 {
		w.fail("left: %d boxes, %d peers, %d letters, %d dirty, %d files", len(r.boxes), len(r.peers), len(r.letters), len(r.dirty), len(w.park.files))
	}
}

// check looks into a router.
func (k *park) check() {
	r := k.r
	sums := map[Peer]*peer{}
	for p := range r.peers {
		sums[p] = &peer{}
	}
	if len(r.letters) != len(k.files) {
		k.w.fail("%d letters, %d have not ended", len(r.letters), len(k.files))
	}
	orphans := map[Box]int{}
	for _, l := range r.letters {
		if l.from == nobody {
			orphans[Box{l.who.Group, l.who.Slot}]++
		} else if sums[l.from] == nil {
			k.w.fail("a letter of %d, who is no more", l.from)
		} else {
			sums[l.from].count(l, 1)
		}
	}
	for p, sum := range sums {
		if pr := r.peers[p]; pr.letters != sum.letters || pr.bytes != sum.bytes || pr.files != sum.files {
			k.w.fail("%v is said to have %d letters, %d bytes; they are %d, %d", pr.who, pr.letters, pr.bytes, sum.letters, sum.bytes)
		}
	}
	parcels := map[*letter]int{}
	for key, b := range r.boxes {
		for i, pc := range b.queue {
			if i > 0 && b.queue[i-1].n >= pc.n || pc.given != nobody || pc.box != b {
				k.w.fail("the box %v is not in order", key)
			}
			parcels[pc.letter]++
		}
		if r.hopeless(b) != "" && len(b.queue) > 0 {
			k.w.fail("%d parcels wait in %v for nobody", len(b.queue), key)
		}
		if len(b.peers) == 0 && key != (Box{}) && key.Slot > r.counts[key.Group] {
			k.w.fail("box %v is nobody's", key)
		}
	}
	for p, pr := range r.peers {
		for n, pc := range pr.given {
			if pc.n != n || pc.given != p || pc.box != pr.box {
				k.w.fail("parcel %d of %v is not his", n, pr.who)
			}
			parcels[pc.letter]++
		}
	}
	for l, n := range parcels {
		if l.left != n || r.letters[l.id] != l {
			k.w.fail("letter %d has %d parcels, and says %d", l.id, n, l.left)
		}
	}
	for b, n := range orphans {
		// Those that were given to somebody end with him.
		if n > Window*(1+len(r.peers)) {
			k.w.fail("%d letters of dead workers of %v", n, b)
		}
	}
}
