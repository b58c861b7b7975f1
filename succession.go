package handover

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// This file is the parent's part in an upgrade, on the side that gives and on the one
// that gets.

func (p *parent) yield(ctx context.Context) (upgrader.Legacy, error) {
	fault.Point(fault.OldPrepared)
	// First: the copy of a binary may take its time, and nobody decides afterwards.
	previous, exe := p.upgrades.handOn()
	p.supervisor.gives.Store(true)
	p.memory.hold(true)
	p.pause()
	p.wishes.hold()
	e, err := p.set.Yield(ctx)
	if err != nil {
		exe.Close() // or nothing, if there is none
		p.supervisor.gives.Store(false)
		p.memory.hold(false)
		p.wishes.release()
		p.answer()
		return upgrader.Legacy{}, err
	}
	files, wishes := p.wishes.give()
	l := upgrader.Legacy{Files: slices.Concat(files, p.upgrades.give(), p.giveRecords())}
	if exe != nil {
		l.Files = append(l.Files, upgrader.NamedFile{Name: filePrevious, File: exe})
	}
	for name, f := range e.Files {
		l.Files = append(l.Files, upgrader.NamedFile{Name: name, File: f})
	}
	p.legacy = l
	fault.Point(fault.OldYielded)
	l.State, err = json.Marshal(parentState{
		Version: 1, Set: e.State, Upgrade: p.upgrades.rolling(), Previous: previous, Wishes: wishes,
		Metrics: p.giveMetrics(ctx),
	})
	return outgoing(l), err
}

// outgoing and incoming are what travels between two parents, on the side that gives
// it and on the one that gets it. They are variables for the tests, in which parents
// are of other versions.
var outgoing, incoming = asItIs, asItIs

func asItIs(l upgrader.Legacy) upgrader.Legacy { return l }

// take makes this generation's workers accept, decides about those of the one
// before, and answers whoever asks.
func (p *parent) take(l upgrader.Legacy) {
	p.decides.Store(true)
	p.since = time.Now()
	if p.up.HasPredecessor() {
		p.shareAnew()
		p.set.Hold()
	}
	estate, wishes := p.sort(incoming(l))
	if past := p.memory.past(); past != nil && p.up.HasPredecessor() && len(l.Files)+len(l.State) == 0 {
		p.recall(past) // the predecessor has died before it could say anything
		estate.State, estate.Dead = past.Set, true
	}
	_ = p.set.Commit(context.Background(), estate) // fails only when the set has ended
	p.metrics.Adopted()
	if err := p.memory.write(context.Background()); err != nil { // that it is this one who decides
		p.log.Warn("what this parent knows is lost if it dies", "error", err)
	}
	p.supervisor.tellFound() // before it hears that the service is ready
	for f, w := range wishes {
		p.wishes.resume(f, w)
	}
	p.answer()
	fault.Point(fault.NewTook)
}

// entrust tells the predecessor whom it has to drain if this generation fails.
func (p *parent) entrust(s workerset.Started) {
	err := p.up.Entrust(upgrader.Ward{
		Pid: s.Pid, Pidfd: s.Pidfd, Output: s.Output, Signal: s.DrainSignal, Timeout: s.DrainTimeout,
	})
	if err != nil {
		p.log.Warn("the previous parent could not be told of a worker: it is killed if the upgrade fails", "pid", s.Pid, "error", err)
	}
}

// stopSet drains the workers. Before the commit they are the predecessor's care: it
// drains what has begun to serve, and the others see their channels end.
func (p *parent) stopSet() {
	if p.up.HasPredecessor() && !p.decides.Load() {
		p.set.Abandon()
		return
	}
	p.supervisor.stop() // first: nobody is to start a parent again that dies meanwhile
	p.set.Stop()
}

func (p *parent) resume() {
	p.set.Resume()
	p.legacy.Close()
	p.upgrades.takeBack()
	p.wishes.release()
	p.memory.hold(false)
	p.shareAnew()
	p.supervisor.gives.Store(false)
	p.answer()
}

// holdTime bounds the wait for the predecessor's end, which is a matter of
// milliseconds unless it is stopped.
const holdTime = time.Second

// release lets the roll begin once the predecessor can't go on instead any more: with
// its own workers it could do so at once, and what this generation starts would have
// to be drained.
func (p *parent) release(ctx context.Context) {
	select {
	case <-p.up.Alone():
	case <-time.After(holdTime):
	case <-ctx.Done():
	}
	if p.up.HasPredecessor() {
		p.supervisor.begin()
	}
	p.set.Release()
	close(p.released)
}
