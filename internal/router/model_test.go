package router

import (
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// TestLives leads services through random lives, and holds them against what each
// process has seen itself. ROUTER_SEED repeats one of them.
func TestLives(t *testing.T) {
	t.Parallel()
	seeds := uint64(400)
	if testing.Short() {
		seeds = 50
	}
	first := uint64(1)
	if s := os.Getenv("ROUTER_SEED"); s != "" {
		first, _ = strconv.ParseUint(s, 10, 64)
		seeds = 1
	}
	var sum tally
	for seed := first; seed < first+seeds && !t.Failed(); seed++ {
		live(t, seed, 3000, &sum)
	}
	t.Logf("%+v", sum)
	if seeds >= 50 && (sum.success == 0 || sum.again == 0 || sum.doubts == 0 || sum.upgrades == 0 || sum.refused == 0 ||
		sum.forgiven == 0 || sum.full == 0 || sum.gone == 0 || sum.lost == 0 || sum.unhandled == 0 || sum.address == 0) {
		t.Error("the lives are too quiet: something never happened")
	}
}

type tally struct {
	success, again, doubts, upgrades, refused, forgiven, full, gone, lost, unhandled, address, handled int
}

// live is one life.
func live(t *testing.T, seed uint64, steps int, sum *tally) {
	w := &world{
		t: t, seed: seed, rnd: rand.New(rand.NewPCG(seed, 1)), sum: sum, counts: map[string]int{"a": 2, "b": 1}, generation: 1,
		procs: map[Peer]*proc{}, keys: map[string]*key{}, seq: map[wire.Sender]int{}, last: map[lane]int{}, running: map[lane]*proc{},
	}
	w.park = newPark(w)
	w.park.r.Groups(w.counts)
	for range steps {
		w.step()
		if t.Failed() {
			return
		}
	}
	w.finish()
}

type lane struct {
	who wire.Sender
	box Box
}

// world is a service: a parent or two, and workers, with channels between them.
type world struct {
	t          *testing.T
	seed       uint64
	rnd        *rand.Rand
	sum        *tally
	counts     map[string]int
	generation int
	nextID     int
	nextKey    int
	park       *park // the parent that decides
	trial      *park // the one that may follow it
	doubted    bool  // another one has decided in between, once
	procs      map[Peer]*proc
	keys       map[string]*key // messages, by their data
	seq        map[wire.Sender]int
	last       map[lane]int // the sequence number of the last that was begun
	running    map[lane]*proc
}

// park is a parent: a router, and what it knows.
type park struct {
	w       *world
	r       *Router
	own     *proc
	files   map[int]string // letters that have not ended, and their keys
	waiting map[Peer]bool  // those whose socket was full
	known   map[Peer]Phase
}

// key is a message.
type key struct {
	name    string
	seq     int
	to      wire.Address
	begun   map[Box]int
	results []wire.Why
	huge    bool // can't be sent to a worker
	chatty  bool // its answer can't be sent back
}

// proc is a worker, or the parent's own endpoint.
type proc struct {
	peer    Peer
	who     wire.Sender
	n       int
	sent    map[int]*key
	in      []any // on its way to it
	out     []any // on its way to the parent
	have    []wire.Message
	running map[wire.Sender]wire.Message
	stopped bool
	done    []int
	forgot  int
	trial   bool
}

type (
	phase   Phase
	drain   struct{}
	forgive struct{}
	who     struct{ n int }
)

func newPark(w *world) *park {
	p := &park{w: w, r: New(), files: map[int]string{}, waiting: map[Peer]bool{}, known: map[Peer]Phase{Parent: Serves}}
	p.own = &proc{sent: map[int]*key{}, running: map[wire.Sender]wire.Message{}}
	return p
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.t.Fatalf("seed %d: %s", w.seed, fmt.Sprintf(format, args...))
}

func (w *world) chance(percent int) bool { return w.rnd.IntN(100) < percent }

// pick is one of the workers.
func (w *world) pick(ok func(*proc) bool) *proc {
	var list []*proc
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		if ok(w.procs[p]) {
			list = append(list, w.procs[p])
		}
	}
	if len(list) == 0 {
		return nil
	}
	return list[w.rnd.IntN(len(list))]
}

func any1(*proc) bool { return true }

// of is the parent that a worker talks to.
func (w *world) of(p *proc) *park {
	if p.trial {
		return w.trial
	}
	return w.park
}

// step is one thing that happens.
func (w *world) step() {
	n := w.rnd.IntN(1000)
	switch {
	case n < 20:
		w.spawn(false)
	case n < 230:
		if p := w.sender(); p != nil {
			burst := 1
			if w.chance(3) {
				burst = 80
			}
			for range burst {
				w.post(p)
			}
		}
	case n < 500:
		if p := w.pick(any1); p != nil {
			w.arrive(p)
		}
	case n < 700:
		if p := w.pick(any1); p != nil {
			w.hear(p)
		}
	case n < 900:
		w.work(w.anyone())
	case n < 925: // its life goes on
		if p := w.pick(func(p *proc) bool { return !p.trial && w.park.known[p.peer] == Starts }); p != nil {
			ph := Serves
			if w.chance(10) {
				ph = Mute
			}
			p.out = append(p.out, phase(ph))
		}
	case n < 935: // it wants to be replaced, and stops, in any order
		if p := w.pick(func(p *proc) bool { return !p.stopped && !p.trial && w.park.known[p.peer] == Serves }); p != nil {
			if w.chance(50) {
				p.out = append(p.out, phase(Leaves))
				p.stop()
			} else {
				p.stop()
				p.out = append(p.out, phase(Leaves))
			}
		}
	case n < 945: // it is to leave
		if p := w.pick(func(p *proc) bool { return !p.trial && w.park.known[p.peer] == Serves }); p != nil {
			w.park.put(p, Leaves)
			p.in = append(p.in, drain{})
		}
	case n < 960: // it is forgiven
		if p := w.pick(func(p *proc) bool { return !p.trial && w.park.known[p.peer] == Leaves }); p != nil && !slices.Contains(p.in, any(drain{})) {
			w.sum.forgiven++
			p.in = append(p.in, forgive{})
			w.park.put(p, Serves)
		}
	case n < 970:
		if p := w.pick(func(p *proc) bool { return !p.trial }); p != nil {
			w.die(p)
		}
	case n < 974:
		w.counts = map[string]int{"a": 1 + w.rnd.IntN(3), "b": w.rnd.IntN(3)}
		w.park.r.Groups(w.counts)
		w.park.flush()
	case n < 982:
		w.upgrade()
	case n < 990:
		for p := range w.park.waiting {
			delete(w.park.waiting, p)
			w.park.serve(p, false)
		}
		w.park.flush()
	case n < 992:
		w.settle()
	}
	if n%16 == 0 {
		w.park.check()
	}
}

func (w *world) sender() *proc {
	if w.chance(10) {
		return w.park.own
	}
	return w.pick(any1)
}

func (w *world) anyone() *proc {
	if w.chance(15) {
		return w.park.own
	}
	if p := w.pick(any1); p != nil {
		return p
	}
	return w.park.own
}

func (w *world) spawn(trial bool) {
	if len(w.procs) > 7 {
		return
	}
	var boxes []Box
	for _, g := range slices.Sorted(maps.Keys(w.counts)) {
		for n := range w.counts[g] {
			boxes = append(boxes, Box{g, n + 1})
		}
	}
	b := boxes[w.rnd.IntN(len(boxes))]
	w.nextID++
	gen := w.generation
	if trial {
		gen++
	}
	p := &proc{
		peer: Peer(w.nextID), who: wire.Sender{Group: b.Group, Slot: b.Slot, ID: w.nextID, Generation: gen},
		sent: map[int]*key{}, running: map[wire.Sender]wire.Message{}, trial: trial,
	}
	w.procs[p.peer] = p
	w.of(p).put(p, Starts)
}

// post sends a message, if there is room.
func (w *world) post(p *proc) {
	if len(p.sent) == Window {
		return
	}
	kinds := []wire.Address{
		{To: wire.ToParent}, {To: wire.ToAll}, {To: wire.ToGroup, Group: "a"}, {To: wire.ToGroup, Group: "b"}, {To: wire.ToAny, Group: "a"},
		{To: wire.ToAny, Group: "b"}, {To: wire.ToSlot, Group: "a", Slot: 1}, {To: wire.ToSlot, Group: "a", Slot: 2},
		{To: wire.ToSlot, Group: "a", Slot: 3}, {To: wire.ToSlot, Group: "b", Slot: 1}, {To: wire.ToSlot, Group: "b", Slot: 0},
		{To: wire.ToGroup, Group: "none"}, {To: "moon"},
	}
	p.n++
	w.nextKey++
	w.seq[p.who]++
	k := &key{
		name: fmt.Sprintf("%q", "m"+strconv.Itoa(w.nextKey)), seq: w.seq[p.who], to: kinds[w.rnd.IntN(len(kinds))], begun: map[Box]int{},
		huge: w.chance(2), chatty: w.chance(2),
	}
	w.keys[k.name] = k
	p.sent[p.n] = k
	m := wire.Message{Cmd: wire.CmdMessage, N: p.n, To: k.to, Type: "x", Data: json.RawMessage(k.name)}
	if p.peer != Parent {
		p.out = append(p.out, m)
		return
	}
	w.park.take(p, m)
}

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
	case who:
		mail := wire.Mail{N: v.n, Sent: slices.Sorted(maps.Keys(p.sent)), Done: slices.Clone(p.done), Forgot: p.forgot}
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

// die ends a worker; its parent has heard all that it has said, or not.
func (w *world) die(p *proc) {
	for w.chance(80) && len(p.out) > 0 {
		w.hear(p)
	}
	delete(w.procs, p.peer)
	for from := range p.running {
		delete(w.running, lane{from, Box{p.who.Group, p.who.Slot}})
	}
	k := w.of(p)
	delete(k.known, p.peer)
	delete(k.waiting, p.peer)
	k.r.End(p.peer)
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
	n := old.r.Doubt()
	for _, p := range slices.Sorted(maps.Keys(w.procs)) {
		old.put(w.procs[p], old.known[p])
		w.procs[p].in = append(w.procs[p].in, who{n})
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
