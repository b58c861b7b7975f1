package router

import (
	"maps"
	"slices"

	"github.com/handover-go/handover/internal/wire"
)

// This file is what the processes of the model say to each other.

// take is a message's arrival at a parent.
func (k *park) take(p *proc, m wire.Message) {
	id, err := k.r.Post(p.peer, m)
	if err != nil {
		k.w.fail("%v posts: %v; it waits for %d, doubted: %v, %+v", p.who, err, len(p.sent), k.w.doubted, k.w.sum)
	}
	if _, ok := k.files[id]; ok {
		k.w.fail("letter %d twice", id)
	}
	k.files[id] = string(m.Data)
	k.flush()
}

// hear is a parent's reading of what a worker says.
func (w *world) hear(p *proc) {
	if len(p.out) == 0 {
		return
	}
	v := p.out[0]
	p.out = p.out[1:]
	k := w.of(p)
	switch v := v.(type) {
	case wire.Message:
		k.take(p, v)
	case wire.Result:
		k.r.Done(p.peer, v)
	case wire.Again:
		w.sum.again++
		k.r.Again(p.peer, v.N)
	case wire.Mail:
		if w.chance(30) { // it follows half a line, and nobody can read it
			w.sum.unread++
			p.in = append(p.in, k.r.Who(p.peer))
			return
		}
		k.r.Mail(p.peer, v)
	case phase:
		if k.known[p.peer] == Starts || Phase(v) == Leaves {
			k.put(p, Phase(v))
		}
	}
	k.flush()
}

func (k *park) put(p *proc, ph Phase) {
	k.known[p.peer] = ph
	k.r.Put(p.peer, p.who, ph)
	k.flush()
}

// flush does what the parent's loop does after each event.
func (k *park) flush() {
	for {
		list := k.r.Dirty()
		if len(list) == 0 {
			break
		}
		for _, p := range list {
			if !k.waiting[p] {
				k.serve(p, true)
			}
		}
	}
	for _, id := range k.r.Ended() {
		if _, ok := k.files[id]; !ok {
			k.w.fail("letter %d ended, and is not under way", id)
		}
		delete(k.files, id)
	}
}

// serve writes to a worker until its socket is full.
func (k *park) serve(p Peer, mayFill bool) {
	for {
		it, ok := k.r.Next(p)
		if !ok {
			return
		}
		pr := k.own
		if p != Parent {
			if pr = k.w.procs[p]; pr == nil {
				k.w.fail("something for %d, who has died", p)
			}
			if mayFill && k.w.chance(3) {
				k.w.sum.full++
				k.waiting[p] = true
				return
			}
		}
		if it.Result != nil {
			res := *it.Result
			if key := pr.sent[res.N]; key != nil && key.chatty && res.Data != nil && p != Parent {
				k.r.Refuse(p, "too long")
				continue
			}
			k.r.Took(p)
			if p == Parent {
				pr.result(k.w, res)
			} else {
				pr.in = append(pr.in, res)
			}
			continue
		}
		m := *it.Message
		if k.files[it.Letter] != string(m.Data) {
			k.w.fail("%s comes with the files of %s", m.Data, k.files[it.Letter])
		}
		if k.w.keys[string(m.Data)].huge && p != Parent {
			k.r.Refuse(p, "too long")
			continue
		}
		k.r.Took(p)
		if p == Parent {
			pr.have = append(pr.have, m)
		} else {
			pr.in = append(pr.in, m)
		}
		if n := pr.holds(); n > Window && !k.w.doubted {
			k.w.fail("%v has %d messages", pr.who, n)
		}
	}
}

// holds counts what a process has been given and is not done with.
func (p *proc) holds() int {
	n := len(p.have) + len(p.running)
	for _, v := range slices.Concat(p.in, p.out) {
		switch v := v.(type) {
		case wire.Message:
			if v.To == (wire.Address{}) {
				n++
			}
		case wire.Result:
			if v.Cmd == wire.CmdDone {
				n++
			}
		case wire.Again:
			n++
		}
	}
	return n
}

// arrive is a worker's reading.
func (w *world) arrive(p *proc) {
	if len(p.in) == 0 {
		return
	}
	v := p.in[0]
	p.in = p.in[1:]
	switch v := v.(type) {
	case wire.Message:
		if p.stopped {
			p.out = append(p.out, wire.Again{N: v.N})
		} else {
			p.have = append(p.have, v)
		}
	case wire.Result:
		p.result(w, v)
	case drain:
		p.stop()
	case forgive:
		p.stopped = false
	case wire.Who:
		if !v.Mail {
			return
		}
		mail := wire.Mail{N: v.N, Sent: slices.Sorted(maps.Keys(p.sent)), Done: slices.Clone(p.done), Forgot: p.forgot}
		for _, m := range p.have {
			mail.Have = append(mail.Have, m.N)
		}
		for _, m := range p.running {
			mail.Have = append(mail.Have, m.N)
		}
		p.out = append(p.out, mail)
	}
}

// result is what became of a message: for its sender it is final, and true.
func (p *proc) result(w *world, r wire.Result) {
	k := p.sent[r.N]
	if k == nil {
		if !w.doubted {
			w.fail("%v hears of %d again: %+v", p.who, r.N, r)
		}
		return
	}
	delete(p.sent, r.N)
	k.results = append(k.results, r.Why)
	several := k.to.To == wire.ToGroup || k.to.To == wire.ToAll
	total := 0
	for b, n := range k.begun {
		total += n
		if n > 1 && r.Why != wire.WhyLost {
			w.fail("%s was handled %d times by %v, and its result is %q", k.name, n, b, r.Why)
		}
	}
	switch r.Why {
	case "":
		w.sum.success++
		if total == 0 || !several && total != 1 {
			w.fail("%s to %v was handled well, by %d", k.name, k.to, total)
		}
		if !several && string(r.Data) != k.name {
			w.fail("%s is answered by %s", k.name, r.Data)
		}
		if several && r.Data != nil {
			w.fail("an answer of several: %s", r.Data)
		}
	case wire.WhyLost:
		w.sum.lost++
	case wire.WhyHandler:
		if !k.chatty {
			w.fail("%s: %+v", k.name, r)
		}
	default:
		switch r.Why {
		case wire.WhyGone:
			w.sum.gone++
		case wire.WhyAddress:
			w.sum.address++
		case wire.WhyUnhandled:
			w.sum.unhandled++
		case wire.WhyRefused:
			w.sum.refused++
			if !k.huge {
				w.fail("%s: %+v", k.name, r)
			}
		}
		if !several && total > 0 {
			w.fail("%s to %v is %q, and was handled", k.name, k.to, r.Why)
		}
	}
}

func (p *proc) stop() {
	p.stopped = true
	for _, m := range p.have {
		p.out = append(p.out, wire.Again{N: m.N})
	}
	p.have = nil
}

// work begins with a message, or ends with one.
func (w *world) work(p *proc) {
	box := Box{p.who.Group, p.who.Slot}
	if len(p.running) > 0 && w.chance(50) {
		froms := slices.SortedFunc(maps.Keys(p.running), func(a, b wire.Sender) int { return a.ID - b.ID })
		from := froms[w.rnd.IntN(len(froms))]
		m := p.running[from]
		delete(p.running, from)
		delete(w.running, lane{from, box})
		if p.done = append(p.done, m.N); len(p.done) > 3 {
			p.forgot = max(p.forgot, p.done[0])
			p.done = p.done[1:]
		}
		r := wire.Result{Cmd: wire.CmdDone, N: m.N, Data: m.Data}
		if p.peer == Parent {
			w.park.r.Done(Parent, r)
			w.park.flush()
		} else {
			p.out = append(p.out, r)
		}
		return
	}
	for i, m := range p.have {
		if _, busy := p.running[m.From]; busy {
			continue
		}
		l := lane{m.From, box}
		k := w.keys[string(m.Data)]
		if other := w.running[l]; other != nil && other != p && !w.doubted {
			w.fail("%v handles two of %v side by side", box, m.From)
		}
		if last := w.last[l]; k.seq <= last && !w.doubted {
			w.fail("%v handles number %d of %v after %d", box, k.seq, m.From, last)
		}
		if k.begun[box]++; k.begun[box] > 1 && !w.doubted {
			w.fail("%v handles %s twice", box, k.name)
		}
		w.sum.handled++
		w.last[l] = k.seq
		w.running[l] = p
		p.running[m.From] = m
		p.have = slices.Delete(p.have, i, i+1)
		return
	}
}
