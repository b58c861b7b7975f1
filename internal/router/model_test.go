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
	seeds := uint64(200)
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
		sum.forgiven == 0 || sum.full == 0 || sum.gone == 0 || sum.lost == 0 || sum.unhandled == 0 || sum.address == 0 || sum.unread == 0) {
		t.Error("the lives are too quiet: something never happened")
	}
}

type tally struct {
	success, again, doubts, upgrades, refused, forgiven, full, gone, lost, unhandled, address, handled, unread int
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
