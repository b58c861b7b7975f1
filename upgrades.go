package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/upgrader"
)

// ask is a wish for an upgrade: by a signal, or by a watcher on the control socket.
type ask struct {
	watcher *control.Watcher
	done    chan error // gets the result, if there is no watcher
}

// upgrades carries wishes out, one upgrade at a time. All that come during one are
// for the next. Watchers are told how it went: of a failure here, of a success by the
// new parent, who gets their connections at the commit.
type upgrades struct {
	p    *parent
	poke chan struct{} // has room for one: a wish has come

	mu      sync.Mutex
	waiting []ask              // for the next upgrade
	current []ask              // for the one that is under way
	rolling []*control.Watcher // of the upgrade that has led to this generation, until its workers serve
	given   []*control.Watcher // to the successor
	last    *control.Outcome
	ended   bool // nothing is carried out any more
}

func newUpgrades(p *parent) *upgrades {
	return &upgrades{p: p, poke: make(chan struct{}, 1)}
}

// want adds a wish. It does not wait.
func (u *upgrades) want(a ask) {
	u.mu.Lock()
	ended := u.ended
	if !ended {
		u.waiting = append(u.waiting, a)
	}
	u.mu.Unlock()
	if ended {
		u.turnAway(a)
		return
	}
	select {
	case u.poke <- struct{}{}:
	default:
	}
}

// turnAway answers a wish that this process does not carry out any more.
func (u *upgrades) turnAway(a ask) {
	ev := control.Event{Result: control.Failed, Reason: upgrader.ErrStopped.Error()}
	err := upgrader.ErrStopped
	select {
	case <-u.p.up.Replaced():
		ev, err = control.Event{Result: control.Moved}, nil
		if a.watcher == nil {
			u.p.up.Relay(syscall.SIGHUP)
		}
	default:
	}
	if a.watcher != nil {
		a.watcher.End(ev)
	} else {
		a.done <- err
	}
}

// run carries wishes out until ctx ends, or this process has been replaced.
func (u *upgrades) run(ctx context.Context) {
	defer u.end()
	for {
		select {
		case <-u.poke:
		case <-ctx.Done():
			return
		}
		u.mu.Lock()
		u.current, u.waiting = u.waiting, nil
		none := len(u.current) == 0
		u.mu.Unlock()
		if none {
			continue
		}
		u.p.supervisor.look()
		if u.upgrade(ctx) == nil {
			return
		}
		u.p.supervisor.look()
	}
}

// upgrade carries out one for all who wait.
func (u *upgrades) upgrade(ctx context.Context) error {
	p := u.p
	generation := p.up.Generation() + 1
	p.log.Info("upgrade begins", "new_generation", generation)
	u.step(fmt.Sprintf("generation %d begins", generation))
	p.metrics.UpgradeBegins()
	err := p.up.Upgrade(ctx)
	u.mu.Lock()
	current := u.current
	u.current = nil
	if err == nil {
		given := u.given
		u.mu.Unlock()
		fault.Point(fault.OldReplaced)
		for _, w := range given {
			w.Drop()
		}
		for _, a := range current {
			if a.watcher == nil {
				a.done <- nil
			}
		}
		return nil
	}
	p.metrics.UpgradeFails()
	ev := failure(err)
	ev.Generation = generation
	u.last = &control.Outcome{Time: time.Now(), Generation: generation, Result: control.Failed, Reason: ev.Reason}
	u.mu.Unlock()
	logged := false
	for _, a := range current {
		if a.watcher != nil {
			a.watcher.End(ev)
			continue
		}
		a.done <- err // the signals' actor logs it
		logged = true
	}
	if !logged {
		p.log.Error("the upgrade that was asked for has failed", "error", err)
	}
	return err
}

// failure makes an event of an upgrade's error.
func failure(err error) control.Event {
	ev := control.Event{Result: control.Failed, Reason: err.Error()}
	var f *upgrader.FailedError
	if errors.As(err, &f) {
		ev.Output = strings.TrimSpace(f.Output)
		short := *f
		short.Output = ""
		ev.Reason = short.Error()
	}
	return ev
}

// step tells those who watch the upgrade that is under way.
func (u *upgrades) step(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, a := range u.current {
		if a.watcher != nil {
			a.watcher.Tell(control.Event{Generation: u.p.up.Generation() + 1, Text: text})
		}
	}
}

// rolled tells those who watch how this generation takes its predecessor's place.
func (u *upgrades) rolled(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.rolling {
		w.Tell(control.Event{Generation: u.p.up.Generation(), Text: text})
	}
}

// settled is the end of this generation's roll.
func (u *upgrades) settled(err error) {
	ev := control.Event{Generation: u.p.up.Generation(), Result: control.Done}
	if err != nil {
		ev.Result, ev.Reason = control.Stopped, err.Error()
	}
	u.p.metrics.UpgradeSettles(string(ev.Result))
	u.mu.Lock()
	watchers := u.rolling
	u.rolling = nil
	if u.last != nil && u.last.Result == control.Rolling {
		u.last.Result, u.last.Reason = ev.Result, ev.Reason
	}
	u.mu.Unlock()
	u.p.supervisor.look()
	for _, w := range watchers {
		w.End(ev)
	}
}

// end turns away whoever is left.
func (u *upgrades) end() {
	u.mu.Lock()
	u.ended = true
	left := append(u.current, u.waiting...)
	rolling := u.rolling
	u.current, u.waiting, u.rolling = nil, nil, nil
	given := map[*control.Watcher]bool{}
	for _, w := range u.given {
		given[w] = true
	}
	u.mu.Unlock()
	for _, a := range left {
		if !given[a.watcher] {
			u.turnAway(a)
		}
	}
	for _, w := range rolling {
		if !given[w] {
			w.End(control.Event{Result: control.Stopped, Reason: "the service stops"})
		}
	}
}

// Names of watchers' connections on their way to the next parent.
const (
	watchNow  = "watch:now/"  // of the upgrade that commits
	watchNext = "watch:next/" // of the one after it
)

// give returns all watchers' connections for the successor.
func (u *upgrades) give() (files []upgrader.NamedFile) {
	u.mu.Lock()
	defer u.mu.Unlock()
	add := func(kind string, w *control.Watcher) {
		if w == nil {
			return
		}
		f, err := w.Give()
		if err != nil {
			return // it has gone
		}
		files = append(files, upgrader.NamedFile{Name: fmt.Sprintf("%s%d", kind, len(files)), File: f})
		u.given = append(u.given, w)
	}
	for _, w := range u.rolling {
		add(watchNow, w)
	}
	for _, a := range u.current {
		add(watchNow, a.watcher)
	}
	for _, a := range u.waiting {
		add(watchNext, a.watcher)
	}
	return files
}

// takeBack forgets what was given: the successor is dead.
func (u *upgrades) takeBack() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.given = nil
}

// take goes on with a predecessor's watcher. It owns f.
func (u *upgrades) take(name string, f *os.File) {
	w, err := control.ResumeWatcher(f)
	if err != nil {
		u.p.log.Warn("somebody who watches the upgrade can't be told of it", "error", err)
		return
	}
	if strings.HasPrefix(name, watchNext) {
		u.want(ask{watcher: w})
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.rolling = append(u.rolling, w)
}

// outcome is the last upgrade's.
func (u *upgrades) outcome() (last *control.Outcome, underway bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.last != nil {
		o := *u.last
		last = &o
	}
	return last, len(u.current) > 0
}
