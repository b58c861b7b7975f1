package router

import (
	"fmt"
	"maps"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is about whose a letter is to be.

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
