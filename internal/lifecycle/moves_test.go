package lifecycle

// What the environment may do next.

// moves calls yield with every successor of g. A fair move is one that happens
// sooner or later; the others are faults and decisions, which need not.
func (x *explorer) moves(g *group, yield func(label string, slot uint8, fair bool, to group)) {
	from, to := 0, int(g.n)
	if i := g.leaver(); i >= 0 && !x.Fine {
		from, to = i, i+1
	}
	for i := from; i < to; i++ {
		p := &g.procs[i]
		try := func(label string, fair bool, change func(*group, *proc) Event) {
			to := *g
			e := change(&to, &to.procs[i])
			if e == numEvents {
				x.settle(&to)
			} else {
				x.react(&to, i, e)
			}
			yield(label, p.slot, fair, to)
		}
		if label, change := ownMove(p); change != nil {
			try(label, true, change)
		}
		if p.is(asked|cause) && p.obeys() && !p.is(lost) && p.real == accepts {
			try("answers, is tolerated", true, func(_ *group, p *proc) Event { p.has &^= asked; return Tolerated })
		}
		if p.armed != unarmed && (!p.obeys() || !canMove(p)) {
			try("deadline", true, func(*group, *proc) Event { return Deadline })
		}
		if to-from != int(g.n) {
			return
		}
		if !p.obeys() && p.real != dead {
			try("hung", false, func(*group, *proc) Event { return Hung })
		}
		if g.faults > 0 {
			x.faults(p, func(label string, change func(*group, *proc) Event) {
				try(label, false, func(g *group, p *proc) Event { g.faults--; return change(g, p) })
				if x.Waits {
					try(label+", its slot waits", false, func(g *group, p *proc) Event {
						g.faults--
						g.waits |= 1 << p.slot // before the capacity is reckoned
						return change(g, p)
					})
				}
			})
		}
		if g.ops > 0 {
			try("op: kill", false, func(g *group, p *proc) Event {
				g.ops--
				g.full = g.full && p.real != accepts
				return Kill
			})
		}
	}
	x.turns(g, yield)
	x.wears(g, yield)
	x.operator(g, yield)
}

// leaver is a worker that no decision depends on any longer: what it does
// commutes with all else. Unless the exploration is fine, such a one goes first
// and undisturbed, or the ways in which they leave would be most of the states.
func (g *group) leaver() int {
	for i := range g.all() {
		p := &g.procs[i]
		if p.state >= Terminating || p.state == Draining && p.is(released) {
			return i
		}
	}
	return -1
}

func canMove(p *proc) bool { _, change := ownMove(p); return change != nil }

// tell is the event that a worker's word becomes, if its channel still carries.
func (p *proc) tell(e Event) Event {
	if p.is(lost) {
		return numEvents
	}
	return e
}

func die(_ *group, p *proc) Event { p.real = dead; return Died }

// finish is the step to having nothing left.
func finish(_ *group, p *proc) Event { p.real = finished; return p.tell(Drained) }

// ownMove is what a process does next when nothing disturbs it, or nil when it
// waits for its parent (or is stuck).
func ownMove(p *proc) (string, func(*group, *proc) Event) {
	switch {
	case p.real == absent:
		return "is spawned", func(_ *group, p *proc) Event { p.real = booting; return Spawned }
	case p.is(gotKill):
		return "dies of SIGKILL", die
	case p.is(gotAbrt):
		return "dies of SIGABRT", die
	case !p.obeys():
		return "", nil
	case p.is(asked) && !p.is(lost):
		return "answers", answer
	case (p.real == booting || p.real == waiting) && p.told():
		return "gives up starting", finish
	case p.real == booting && !p.is(slow):
		return "is ready", func(_ *group, p *proc) Event { p.real = waiting; return p.tell(Ready) }
	case p.real == accepts && p.told():
		return "drains", func(_ *group, p *proc) Event { p.real = finishing; return p.tell(Leaving) }
	case p.is(waits) && p.real == accepts:
		return "drains unanswered", func(_ *group, p *proc) Event { p.real = finishing; return p.tell(Leaving) }
	case p.real == finishing && (!p.is(slow) || p.is(gotTerm)):
		return "has drained", finish
	case p.real == finished && p.has&(gotExit|gotEOF) != 0:
		return "exits", die
	}
	return "", nil
}

// answer is the adopted worker's word on what it does.
func answer(_ *group, p *proc) Event {
	p.has &^= asked
	switch {
	case p.is(cause):
		return Failed
	case p.real == booting:
		return Spawned
	case p.real == waiting:
		return Ready
	case p.real == finishing:
		return Leaving
	case p.real == finished:
		return Drained
	}
	return numEvents
}

// faults are what may go wrong with one worker.
func (x *explorer) faults(p *proc, try func(string, func(*group, *proc) Event)) {
	// unpromise: the capacity that the group has from here on is not its own doing.
	unpromise := func(g *group, p *proc) { g.full = g.full && p.real != accepts }
	if p.real == absent {
		try("cannot be spawned", func(_ *group, p *proc) Event { p.real = dead; return SpawnFailed })
		try("dies before it is known", die)
		return
	}
	fail := func(g *group, p *proc) Event {
		// While its slot waits it costs nothing: it goes on accepting.
		g.hurt = g.hurt || p.real == accepts && !g.slotWaits(p.slot)
		p.has |= waits | cause
		return Failed
	}
	tolerated := func(_ *group, p *proc) Event { p.has |= waits | cause; return Tolerated }
	if x.Mild {
		if p.obeys() && !p.is(lost) && p.real < finishing {
			try("fails", fail)
			if p.real == accepts {
				try("fails, is tolerated", tolerated)
			}
		}
		return
	}
	try("dies", func(g *group, p *proc) Event { unpromise(g, p); return die(g, p) })
	if !p.is(lost) {
		try("loses its channel", func(g *group, p *proc) Event { unpromise(g, p); p.has |= lost; return Lost })
	}
	if !p.obeys() {
		return
	}
	try("hangs", func(g *group, p *proc) Event { unpromise(g, p); p.has |= stuck; return numEvents })
	try("is taken for hung", func(g *group, p *proc) Event { unpromise(g, p); return Hung })
	if !p.is(slow) && p.real != waiting && p.real != finished {
		try("is slow", func(_ *group, p *proc) Event { p.has |= slow; return numEvents })
	}
	if p.is(lost) || p.real == finishing || p.real == finished {
		return
	}
	if !p.is(asked) || p.real == accepts {
		try("fails", fail)
	}
	if p.real == accepts || p.is(asked) { // until it has answered it is believed to serve
		try("fails, is tolerated", tolerated)
	}
	try("leaves by itself", func(g *group, p *proc) Event { unpromise(g, p); p.real = finishing; return Leaving })
	try("has drained by itself", func(g *group, p *proc) Event { unpromise(g, p); return finish(g, p) })
}

// operator is what people (and the succession) decide.
func (x *explorer) operator(g *group, yield func(string, uint8, bool, group)) {
	try := func(label string, fair bool, change func(*group)) {
		to := *g
		change(&to)
		x.settle(&to)
		yield(label, 0, fair, to)
	}
	if !g.committed && !g.stopped && g.n == 1 && g.procs[0].state == Standby {
		for _, heirs := range x.Adopt {
			try("commit", true, func(g *group) { x.commit(g, heirs) })
		}
	}
	if x.Freeze && !g.frozen {
		try("nobody helps any longer", false, func(g *group) {
			g.frozen, g.full, g.faults, g.ops = true, false, 0, 0
			for i := range g.all() {
				if g.procs[i].born() {
					g.procs[i].has |= stuck
				}
			}
		})
	}
	if g.ops == 0 || g.stopped {
		return
	}
	try("op: restart", false, func(g *group) {
		g.ops--
		g.halted = false
		for i := range g.all() {
			g.procs[i].has = g.procs[i].has&^worn | stale
		}
	})
	for n := uint8(1); g.committed && n <= x.MaxCount; n++ {
		if n != g.count {
			try("op: scale", false, func(g *group) {
				g.ops--
				g.full = g.full && n < g.count
				g.count = n
			})
		}
	}
	try("op: stop", false, func(g *group) {
		g.ops--
		g.full, g.stopped = false, true
		for i := range g.all() {
			x.happen(g, i, Stop)
		}
	})
}

// commit makes a generation of one trial worker the heir of older workers.
func (x *explorer) commit(g *group, heirs []proc) {
	trial := g.procs[0]
	g.n = 0
	for _, p := range heirs {
		x.add(g, proc{state: Spawning, armed: unarmed, slot: p.slot, real: p.real, has: p.has | stale})
	}
	x.add(g, trial)
	g.committed = true
	g.count = x.Count
	g.full, g.hurt = trial.obeys(), false
	for i, p := range heirs {
		x.happen(g, i, Adopted)
		g.full = g.full && p.real == accepts && p.has == 0
	}
}
