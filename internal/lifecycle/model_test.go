package lifecycle

// The model of one group: what the parent believes of each worker, driven by
// Next and Plan, and beside it what the process really does. The environment
// chooses; explore_test.go goes through all its choices.

// real is what a process is doing, whatever the parent believes.
type real uint8

const (
	absent    real = iota // not created yet
	booting               // has not said that it is ready
	waiting               // waits to be told to accept
	accepts               // accepts
	finishing             // finishes what it has
	finished              // has nothing left, waits to be told that it may exit
	dead
)

var realNames = [...]string{"absent", "booting", "waiting", "accepts", "finishing", "finished", "dead"}

// bits is what is known of a worker besides its states.
type bits uint16

const (
	stale    bits = 1 << iota
	released      // the parent has said that it may exit
	worn          // has reached a limit, and is being replaced
	served        // the parent has counted on it
	gotDrain      // it was told to drain
	gotExit       // it was told that it may exit
	gotEOF        // its channel was closed by the parent
	lost          // its channel has ended: no message passes either way
	gotTerm
	gotAbrt
	gotKill
	asked // was asked what it does and has not answered
	waits // said that it fails and has had no answer
	cause // what it says of itself carries a cause: it has failed and was not forgiven
	stuck // does nothing more by itself, survives all but SIGKILL
	slow  // neither becomes ready nor finishes its drain before a SIGTERM
)

var bitNames = [...]string{
	"stale", "released", "worn", "served", "drain", "exit", "eof", "lost", "term",
	"abrt", "kill", "asked", "waits", "cause", "stuck", "slow",
}

// unarmed stands for "no deadline runs".
const unarmed = numStates

// proc is one incarnation.
type proc struct {
	state State // as the parent sees it
	armed State // the state whose deadline runs
	slot  uint8
	real  real
	has   bits
}

const maxProcs = 10

// group is a state of the model. It is a map key: no pointers, no padding. The
// workers stand in the order of their ages; a worker that has exited is
// forgotten, so that IDs (index + 1) never grow.
type group struct {
	procs       [maxProcs]proc
	n           uint8
	count       uint8
	faults, ops uint8 // that may still be injected
	halted      bool
	stopped     bool
	committed   bool
	full        bool  // capacity is promised: it was complete, and only Failed has happened since
	hurt        bool  // a serving worker has failed since
	frozen      bool  // no faults any longer, and nobody was helpful at that moment
	waits       uint8 // the slots that get no new worker yet, a bit for each
	//lint:ignore U1000 without padding a map hashes it as plain memory
	pad uint8
}

func (g *group) all() []proc { return g.procs[:g.n] }

func (x *explorer) add(g *group, p proc) {
	if g.n == maxProcs {
		x.violate("workers are few", "%d live", g.n)
		return
	}
	g.procs[g.n] = p
	g.n++
}

// bury forgets the dead.
func (g *group) bury() {
	n := uint8(0)
	for _, p := range g.all() {
		if p.real != dead {
			g.procs[n] = p
			n++
		}
	}
	clear(g.procs[n:])
	g.n = n
}

func (p *proc) is(b bits) bool { return p.has&b == b }
func (p *proc) obeys() bool    { return p.has&stuck == 0 }
func (p *proc) born() bool     { return p.real != absent }

// told reports whether the process knows that it has to drain. SIGTERM is not
// enough: a library worker takes it as a reason to ask its parent.
func (p *proc) told() bool { return p.has&(gotDrain|gotEOF) != 0 }

// silent: it can say that it does not accept any more, and has not. It says so when it
// begins to finish.
func (p *proc) silent() bool { return !p.is(lost) && p.real < finishing }

// covered reports whether another worker, a fresh one, serves the slot of i.
func (g *group) covered(i int) bool {
	for j := range g.all() {
		q := &g.procs[j]
		if j != i && q.slot == g.procs[i].slot && q.state.Serves() && !q.goes() {
			return true
		}
	}
	return false
}

// goes: it is to be replaced, well as it is.
func (p *proc) goes() bool { return p.has&(stale|worn) != 0 }

// serves reports whether a worker serves a slot that has one of these marks.
func (g *group) serves(slot uint8, marks bits) bool {
	for i := range g.all() {
		p := &g.procs[i]
		if p.slot == slot && p.state.Serves() && p.has&marks != 0 {
			return true
		}
	}
	return false
}

// staleServes reports whether a worker serves a slot that is to be replaced.
func (g *group) staleServes(slot uint8) bool { return g.serves(slot, stale|worn) }

// fresh counts the workers that serve or will serve a slot and are to stay.
func (g *group) fresh(slot uint8) (serve, arrive int) {
	for i := range g.all() {
		p := &g.procs[i]
		if p.slot == slot && !p.goes() {
			if p.state.Serves() {
				serve++
			}
			if p.state.Arrives() {
				arrive++
			}
		}
	}
	return serve, arrive
}

// accepting counts the processes that really take connections.
func (g *group) accepting() int {
	n := 0
	for i := range g.all() {
		if p := &g.procs[i]; p.real == accepts && p.obeys() {
			n++
		}
	}
	return n
}

// slotWaits: a surplus slot waits for nobody.
func (g *group) slotWaits(slot uint8) bool { return slot <= g.count && g.waits&(1<<slot) != 0 }

func (g *group) any(b bits) bool {
	for i := range g.all() {
		if g.procs[i].is(b) {
			return true
		}
	}
	return false
}

// happen gives an event to a worker and carries its effects out.
func (x *explorer) happen(g *group, i int, e Event) {
	p := &g.procs[i]
	old := p.state
	next, effect := x.next(old, e)
	p.state = next
	if next.Serves() && (e == Commit || e == Adopted) {
		p.has |= served
	} else if next == Starting { // adopted, it turned out not to serve
		p.has &^= served
	}
	x.checkEvent(g, i, old, e, effect)
	if effect.Has(Disarm) {
		p.armed = unarmed
	}
	if effect.Has(Arm) {
		p.armed = p.state
	}
	if effect.Has(SendExit) {
		p.has |= released
	}
	if !p.is(lost) {
		x.send(p, effect)
	}
	if effect.Has(CloseChan) {
		p.has |= gotEOF | lost
	}
	if effect.Has(SignalAbrt) {
		p.has |= gotAbrt
	}
	if effect.Has(SignalTerm) {
		p.has |= gotTerm
	}
	if effect.Has(SignalKill) {
		p.has |= gotKill
	}
}

// send delivers the messages among the effects.
func (x *explorer) send(p *proc, effect Effect) {
	if effect.Has(Ask) {
		p.has |= asked
	}
	if effect.Has(SendGo) && p.real == waiting && p.obeys() {
		p.real = accepts
	}
	if effect.Has(SendHold) {
		p.has &^= waits
	}
	if effect.Has(SendForgive) {
		p.has &^= waits | cause
	}
	if effect.Has(SendDrain) { // why does not matter any more
		p.has = p.has&^(waits|cause) | gotDrain
	}
	if effect.Has(SendExit) {
		p.has |= gotExit
	}
}

// react is the shell: it hands an event to Next, keeps what a shell has to
// keep, and then asks Plan.
func (x *explorer) react(g *group, i int, e Event) {
	p := &g.procs[i]
	arrived := p.state.Arrives() && !p.is(stale)
	if e == Deadline {
		x.checkDeadline(g, i)
		p.armed = unarmed
	}
	x.happen(g, i, e)
	if arrived && !p.state.Arrives() && !p.state.Serves() && e != Kill {
		x.cameToNothing(g, p.slot)
	}
	x.settle(g)
}

// cameToNothing: a replacement could not start. That halts a roll, and who was only
// worn stays.
func (x *explorer) cameToNothing(g *group, slot uint8) {
	g.halted = g.halted || g.serves(slot, stale)
	for i := range g.all() {
		if p := &g.procs[i]; p.slot == slot && p.state.Accepts() {
			p.has &^= worn
		}
	}
}

// settle lets the ready ones go when the generation is committed, and carries
// out what Plan says.
func (x *explorer) settle(g *group) {
	x.checkDead(g)
	g.bury()
	for i := range g.all() {
		if g.committed && g.procs[i].state == Standby {
			x.happen(g, i, Commit)
		}
	}
	if !g.stopped {
		steps := x.planned(g).steps
		x.checkSteps(g, steps)
		for _, id := range steps.Replaced {
			x.happen(g, id-1, Replaced)
		}
		for _, id := range steps.Retire {
			x.happen(g, id-1, Retire)
		}
		for _, slot := range steps.Spawn {
			x.add(g, proc{state: Spawning, armed: unarmed, slot: uint8(slot)})
		}
		if again := x.planned(g).steps; len(again.Spawn)+len(again.Retire)+len(again.Replaced) > 0 {
			x.violate("plan is idempotent", "asked again it wants %+v after %+v", again, steps)
		}
	}
	x.checkState(g)
	if x.atRest(g) && !g.any(asked) { // capacity is promised anew
		g.full, g.hurt = g.accepting() == int(g.count), false
	}
}
