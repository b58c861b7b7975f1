package handover

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/image"
)

// This file is what becomes of the upgrade that has led to this generation: its workers
// replace the older ones, it proves itself, or is gone back from.

// settled is the end of this generation's roll.
func (u *upgrades) settled(err error) {
	if err == nil {
		u.p.metrics.UpgradeServes()
	}
	if t := u.p.probation; t != nil {
		t.served <- err
		return
	}
	ev := control.Event{Result: control.Done}
	if err != nil {
		ev.Result, ev.Reason = control.Stopped, err.Error()
	}
	u.finish(ev)
}

// watched is the beginning of this generation's probation.
func (u *upgrades) watched(until time.Time) {
	ev := control.Event{Generation: u.p.up.Generation(), Result: control.Done}
	u.mu.Lock()
	if u.last != nil && u.last.Result == control.Rolling {
		u.last.Result, u.last.Until = control.Probation, until
	}
	var kept []watch
	var content []lateWord
	for _, w := range u.watches {
		if w.wait == control.WaitServe {
			content = append(content, lateWord{w.watcher, ev})
			continue
		}
		kept = append(kept, w)
		w.watcher.Tell(control.Event{
			Generation: ev.Generation,
			Text:       fmt.Sprintf("generation %d serves, and is watched for %v", ev.Generation, u.p.probation.time),
		})
	}
	u.watches = kept
	u.mu.Unlock()
	u.p.supervisor.look()
	u.ends(content)
}

// finish is the last word about the upgrade that has led to this generation. There is one.
func (u *upgrades) finish(ev control.Event) {
	ev.Generation = u.p.up.Generation()
	undone := ev
	u.mu.Lock()
	if b := u.p.back; b != nil && ev.Result == control.Done {
		undone.Result, undone.Reason = control.RolledBack, b.Reason
	}
	if u.last != nil && !u.last.Result.Final() {
		u.last.Result, u.last.Reason, u.last.Until = ev.Result, ev.Reason, time.Time{}
		if u.p.back.fails() {
			u.last.Result, u.last.Reason = undone.Result, undone.Reason
		}
		u.p.upgraded(*u.last, "")
		u.p.metrics.UpgradeSettles(u.last.Result)
	}
	u.proven = u.proven || ev.Result == control.Done
	watches := u.watches
	u.watches = nil
	close(u.over)
	u.mu.Unlock()
	if ev.Result == control.Done {
		u.p.keepForSuccessor()
	}
	u.p.memory.now()
	u.p.supervisor.look()
	var words []lateWord
	for _, w := range watches {
		if w.undone {
			words = append(words, lateWord{w.watcher, undone})
		} else {
			words = append(words, lateWord{w.watcher, ev})
		}
	}
	u.ends(words)
}

// failsProbation leads back, if there is a way.
func (u *upgrades) failsProbation(why string) {
	generation := u.p.up.Generation()
	u.mu.Lock()
	p := u.previous
	u.mu.Unlock()
	if p == nil {
		u.p.log.Error("this generation has failed its probation, and there is none to go back to", "reason", why)
		u.finish(control.Event{Result: control.Stopped, Reason: fmt.Sprintf("%s; %v", why, errNoPrevious)})
		return
	}
	u.p.log.Error("this generation has failed its probation and is gone back from", "previous", p.Generation, "reason", why)
	u.rolled(fmt.Sprintf("generation %d has failed its probation: %s", generation, why))
	u.want(ask{back: &back{Failed: generation, Reason: why}})
}

// leadsBack reports whether workers that fail are a reason to go back, and so none to give
// the service up.
func (u *upgrades) leadsBack() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	select {
	case <-u.over:
		return false
	default:
		return u.p.probation != nil && u.previous != nil
	}
}

// lead carries out an upgrade to the current binary, or on the way back.
func (u *upgrades) lead(ctx context.Context, way *back) error {
	if way == nil {
		if path, err := u.p.up.Program(); err == nil && u.keeps() {
			u.keeper.begin(path)
		}
		return u.p.up.Upgrade(ctx)
	}
	u.mu.Lock()
	p := u.previous
	u.mu.Unlock()
	if p == nil {
		return errNoPrevious
	}
	t, err := p.target(*way)
	if err != nil {
		return err
	}
	return u.p.up.UpgradeTo(ctx, t)
}

// keeps reports whether a copy of this generation's binary may be wanted.
func (u *upgrades) keeps() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.proven || u.previous != nil && u.previous.exe == nil
}

// rolling is the outcome of the upgrade that commits. On the way back from a generation
// that has failed it is that one's.
func (u *upgrades) rolling() *control.Outcome {
	o := &control.Outcome{Time: time.Now(), Began: u.began, Generation: u.p.up.Generation() + 1, Result: control.Rolling}
	u.mu.Lock()
	defer u.mu.Unlock()
	if b := wayOf(u.current); b.fails() {
		o.Generation, o.Reason = b.Failed, b.Reason
	}
	return o
}

// overtaken is the outcome of the upgrade that has led to this generation, if the next one
// commits before there is one.
func (u *upgrades) overtaken() *control.Outcome {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last == nil || u.last.Result.Final() || wayOf(u.current).fails() {
		return nil
	}
	o := *u.last
	o.Until = time.Time{}
	if o.Result == control.Rolling {
		o.Reason = "the next upgrade came before all workers were replaced"
	} else {
		o.Reason = "the next upgrade came before its probation had ended"
	}
	o.Result = control.Stopped
	return &o
}

// handOn is what the successor of an upgrade under way could go back to: this generation,
// or the one before it if that is the last one that has proven itself. nil: there is none.
// Without a file it is the successor's own binary; the file is the caller's to close.
func (u *upgrades) handOn() (*recipe, *os.File) {
	u.mu.Lock()
	way, prev, proven := wayOf(u.current), u.previous, u.proven
	u.mu.Unlock()
	made := u.p.made
	switch {
	case way != nil, !proven && prev == nil:
		return nil, nil // what is gone back from, is not gone back to
	case !proven:
		made = prev.recipe
	}
	exe, err := u.binary(prev, proven)
	if err != nil {
		u.p.log.Warn("there will be no way back from the next generation", "error", err)
		return nil, nil
	}
	return &made, exe
}

// binary opens the one to go back to anew, unless the successor executes the same.
func (u *upgrades) binary(prev *previous, proven bool) (*os.File, error) {
	if !proven && prev.exe != nil {
		return image.Reopen(prev.exe)
	}
	path, _ := u.p.up.Program()
	f, err := u.keeper.get(path)
	if f == nil || err != nil {
		return nil, err
	}
	return image.Reopen(f)
}
