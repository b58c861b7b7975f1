package lifecycle

// What Plan, Due and Recycle are shown of the model.

func (x *explorer) want(g *group) Want {
	want := Want{Count: int(g.count), Surge: x.Surge, Halted: g.halted}
	for slot := uint8(1); slot <= g.count; slot++ {
		if g.slotWaits(slot) {
			want.Waits = append(want.Waits, int(slot))
		}
	}
	return want
}

func (g *group) workers() []Worker {
	ws := make([]Worker, 0, maxProcs)
	for i, p := range g.all() {
		ws = append(ws, Worker{ID: i + 1, Slot: int(p.slot), State: p.state, Stale: p.is(stale), Released: p.is(released), Silent: p.silent(), Worn: p.is(worn)})
	}
	return ws
}

// planKey is all that Plan can see; most states of the model look alike to it.
type planKey struct {
	procs  [maxProcs][3]uint8
	count  uint8
	waits  uint8
	halted bool
}

type planned struct {
	steps   Steps
	settled bool
}

func (x *explorer) planned(g *group) planned {
	k := planKey{count: g.count, waits: g.waits, halted: g.halted}
	for i, p := range g.all() {
		k.procs[i] = [3]uint8{uint8(p.state) + 1, p.slot, uint8(p.has & (stale | released | worn))}
		if p.silent() {
			k.procs[i][2] |= 1 << 7
		}
	}
	s, ok := x.plans[k]
	if !ok {
		want := x.want(g)
		s = planned{x.plan(g.workers(), want), x.isSettled(g.workers(), want)}
		x.plans[k] = s
	}
	return s
}
