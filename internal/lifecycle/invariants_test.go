package lifecycle

// The promises. Each has a name, which a violation carries.

// timed reports whether a state must not last for ever: nothing but a deadline
// ends a worker that does not cooperate there.
func timed(s State) bool {
	return s == Starting || s == Draining || s == Terminating || s == Killing
}

// checkEvent judges one transition, before its effects reach the worker.
func (x *explorer) checkEvent(g *group, i int, old State, e Event, effect Effect) {
	p := &g.procs[i]
	if !p.born() && effect&^(Disarm|Arm|Report) != 0 {
		x.violate("nothing is sent to a worker without a process", "%v at %v: %v", e, old, effect)
	}
	if e == Died && p.state != Exited || e != Died && e != SpawnFailed && p.state == Exited {
		x.violate("exited means dead", "%v at %v enters %v", e, old, p.state)
	}
	if e == Stop && p.born() && old < Terminating && !effect.Has(SendDrain|SendExit) {
		x.violate("who is stopped is told all", "at %v: %v", old, effect)
	}
	if old.Serves() && e == Failed && p.state != Condemned {
		x.violate("who is to be replaced is condemned", "enters %v", p.state)
	}
	if old.Serves() && e == Tolerated && p.state != Degraded {
		x.violate("who is tolerated goes on", "enters %v", p.state)
	}
	if p.state == Condemned && !p.is(served) {
		x.violate("who never served waits for nobody", "%v at %v", e, old)
	}
	if effect.Has(SendForgive) && p.state != Degraded {
		x.violate("who is forgiven goes on", "%v at %v enters %v", e, old, p.state)
	}
	if e == Kill && p.state != Killing {
		x.violate("who has to go at once is killed", "at %v", old)
	}
	if e == Hung && p.born() && old < Terminating && !effect.Has(SignalAbrt) {
		x.violate("who hangs is made to say where", "at %v", old)
	}
	if e == Deadline && old >= Terminating && !effect.Has(SignalKill) {
		x.violate("who stays is killed, again and again", "at %v", old)
	}
	if timed(p.state) && p.state != old && p.born() && !effect.Has(Arm) {
		x.violate("deadlines are armed and disarmed", "%v enters %v without", old, p.state)
	}
	if effect.Has(SendExit) && !x.mayRelease(g, i, e) {
		x.violate("no exit before the replacement serves", "%v at %v", e, old)
	}
	if effect.Has(SignalAbrt) && e != Hung {
		x.violate("SIGABRT only for a hung worker", "%v at %v", e, old)
	}
	if effect.Has(SignalTerm) && e != Deadline {
		x.violate("SIGTERM only after a deadline", "%v at %v", e, old)
	}
	if effect.Has(SignalKill) {
		switch {
		case e == Kill, e == Spawned && old == Killing:
		case e != Deadline:
			x.violate("SIGKILL only after a deadline or by decision", "%v at %v", e, old)
		case old == Killing: // once more
		case p.has&(gotTerm|gotAbrt) == 0:
			x.violate("SIGKILL is not the first request", "%v at %v", e, old)
		case p.obeys():
			x.violate("who obeys is not killed", "%v at %v", e, old)
		}
	}
	if arm := effect.Has(Arm); arm && old == p.state && e != Deadline && e != Spawned {
		x.violate("a deadline is not put off", "%v at %v", e, old)
	}
}

// mayRelease reports whether a worker may be told now that it may exit.
func (x *explorer) mayRelease(g *group, i int, e Event) bool {
	p := &g.procs[i]
	return e == Deadline || g.stopped || !p.is(served) || p.slot > g.count || g.covered(i)
}

// checkDeadline judges a deadline that passes.
func (x *explorer) checkDeadline(g *group, i int) {
	p := &g.procs[i]
	if p.state == Killing || !p.obeys() || p.is(slow) {
		return
	}
	// One that obeys can only be late because it waits for its replacement.
	if p.state != Draining || p.real != finished || p.is(gotExit) || g.stopped || p.slot > g.count || g.covered(i) {
		x.violate("no deadline passes for one that was not told", "%v, %v", p.state, realNames[p.real])
	}
}

// checkDead: whoever is dead is known to be.
func (x *explorer) checkDead(g *group) {
	for i := range g.all() {
		p := &g.procs[i]
		if (p.real == dead) != (p.state == Exited) {
			x.violate("exited means dead", "%v, %v", p.state, realNames[p.real])
		}
		if p.real == dead && p.armed != unarmed {
			x.violate("deadlines are armed and disarmed", "%v has that of %v", p.state, p.armed)
		}
	}
}

// checkSteps judges what Plan wants before it is done.
func (x *explorer) checkSteps(g *group, steps Steps) {
	others := func(but int) int { // that the parent believes to accept
		n := 0
		for j := range g.all() {
			if j != but && g.procs[j].state.Accepts() {
				n++
			}
		}
		return n
	}
	for _, id := range steps.Retire {
		p := &g.procs[id-1]
		switch {
		case p.state == Condemned && p.slot <= g.count && others(id-1) >= int(g.count)-1 && !g.slotWaits(p.slot):
		case p.state.Serves() && p.slot > g.count && others(id-1) >= int(g.count):
		case p.state.Arrives() && p.slot > g.count:
		case p.state.Serves() && g.covered(id-1):
		case p.state.Arrives() && p.is(stale):
		default:
			x.violate("who serves is not retired before its replacement serves", "%v in slot %d", p.state, p.slot)
		}
	}
	for _, id := range steps.Replaced {
		p := &g.procs[id-1]
		surplus := p.slot > g.count && (p.state != Condemned || others(id-1) >= int(g.count)-1)
		if p.state != Condemned && p.state != Draining || p.is(released) || !g.covered(id-1) && !surplus {
			x.violate("replaced means that the replacement serves", "%v in slot %d", p.state, p.slot)
		}
	}
	for _, slot := range steps.Spawn {
		serve, arrive := g.fresh(uint8(slot))
		if serve+arrive > 0 || slot < 1 || slot > int(g.count) || g.halted && g.staleServes(uint8(slot)) {
			x.violate("exactly one replacement", "spawn in slot %d", slot)
		}
		if g.slotWaits(uint8(slot)) {
			x.violate("a slot that waits gets nobody", "spawn in slot %d", slot)
		}
	}
}

// checkState judges a state of the group after Plan.
func (x *explorer) checkState(g *group) {
	for i := range g.all() {
		x.checkProc(&g.procs[i])
	}
	if g.full {
		promised := int(g.count)
		if g.hurt {
			promised--
		}
		if n := g.accepting(); n < promised {
			x.violate("capacity", "%d accept, %d were promised", n, promised)
		}
	}
	if !g.stopped {
		x.checkSlots(g)
	}
}

func (x *explorer) checkSlots(g *group) {
	accept, condemned := 0, 0
	for i := range g.all() {
		p := &g.procs[i]
		if p.state.Accepts() {
			accept++
		}
		if p.state == Condemned && !g.slotWaits(p.slot) {
			condemned++
		}
	}
	if condemned > 0 && accept >= int(g.count) {
		x.violate("who fails drains as soon as the others suffice", "%d accept", accept)
	}
	missing, rolling, extra := 0, 0, 0
	for slot := uint8(1); slot <= g.count; slot++ {
		serve, arrive := g.fresh(slot)
		if arrive > 1 {
			x.violate("at most one arrives in a slot", "%d in slot %d", arrive, slot)
		}
		extra += max(serve+arrive-1, 0)
		switch {
		case serve+arrive > 1:
			x.violate("exactly one replacement", "%d in slot %d", serve+arrive, slot)
		case serve+arrive == 0 && g.slotWaits(slot):
		case serve+arrive == 0 && !g.staleServes(slot):
			x.violate("exactly one replacement", "none in slot %d", slot)
		case serve+arrive == 0:
			missing++
		case g.staleServes(slot):
			extra++
			rolling++
		}
	}
	if rolling > x.Surge || extra > x.Surge {
		x.violate("surge", "%d roll, %d extra", rolling, extra)
	}
	if missing > 0 && rolling < x.Surge && !g.halted {
		x.violate("a roll goes on", "%d slots wait, %d roll", missing, rolling)
	}
	got := x.planned(g).settled
	if got != x.settled(g) {
		x.violate("settled is what it says", "got %v", got)
	}
	for i := range g.all() {
		p := &g.procs[i]
		if got && p.real == accepts && !p.is(lost|gotEOF) && !p.is(gotKill) && !p.state.Serves() {
			x.violate("settled means that nobody else accepts", "%v in slot %d", p.state, p.slot)
		}
	}
}

// checkProc compares what the parent believes of a worker with what it does.
func (x *explorer) checkProc(p *proc) {
	needs := timed(p.state) && p.born()
	if needs && p.armed != p.state || !needs && p.armed != unarmed {
		x.violate("deadlines are armed and disarmed", "%v has that of %v", p.state, p.armed)
	}
	if p.is(lost) && !p.is(gotEOF) {
		x.violate("a channel that ended is closed", "%v", p.state)
	}
	if p.state == Draining && p.has&(served|lost|gotExit) == 0 {
		x.violate("who never served waits for nobody", "")
	}
	if p.state.Accepts() && !p.is(served) {
		x.violate("who never served waits for nobody", "%v", p.state)
	}
	if p.state == Terminating && p.has&(gotTerm|gotAbrt) == 0 || p.state == Killing && p.born() && !p.is(gotKill) {
		x.violate("who has to go is signalled", "%v", p.state)
	}
	right := true
	switch p.state {
	case Spawning:
		right = p.real == absent
	case Starting:
		right = p.real == booting
	case Standby:
		right = p.real == waiting
	case Serving, Degraded, Condemned:
		right = p.real == accepts || p.is(asked)
	case Draining:
		right = p.told() || p.real == finishing || p.real == finished
	case Exited:
		right = false // buried by now
	}
	if !right && p.obeys() {
		x.violate("belief matches the process", "%v, %v", p.state, realNames[p.real])
	}
	if p.is(waits) && p.state.Accepts() && !p.is(asked) {
		x.violate("who asks is answered", "%v", p.state)
	}
	if p.is(cause) && p.state.Serves() && !p.is(asked) {
		x.violate("who goes on serving is forgiven", "%v", p.state)
	}
}

// settled is Settled said in another way: slot by slot.
func (x *explorer) settled(g *group) bool {
	for i := range g.all() {
		p := &g.procs[i]
		replaces := p.state.Arrives() && g.wornServes(p.slot) // and is not waited for
		if p.state < Draining && (!p.state.Serves() && !replaces || p.slot > g.count) {
			return false
		}
		if p.state >= Draining && p.state < Killing && p.real < finishing && !p.is(lost) {
			return false
		}
	}
	for slot := uint8(1); slot <= g.count; slot++ {
		if g.wornServes(slot) {
			continue
		}
		fresh, _ := g.fresh(slot)
		old := g.staleServes(slot)
		if !(fresh == 1 && !old || fresh == 0 && old && g.halted) {
			return false
		}
	}
	return true
}

// wornServes: one serves the slot that is to be replaced only because it is worn.
func (g *group) wornServes(slot uint8) bool { return g.serves(slot, worn) && !g.serves(slot, stale) }

// atRest reports whether the group has arrived where it has to: it is settled
// and the ones that had to go have gone, or it has stopped.
func (x *explorer) atRest(g *group) bool {
	if g.stopped {
		return g.n == 0
	}
	for i := range g.all() {
		p := &g.procs[i]
		// A degraded worker has its turn, unless it is one that a halted roll left.
		if !p.state.Serves() || p.is(worn) || p.state == Degraded && !(p.is(stale) && g.halted) {
			return false
		}
	}
	return g.committed && x.settled(g)
}
