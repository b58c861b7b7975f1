package handover

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/upgrader"
)

// ask is a wish for an upgrade, or for the way back: by a signal, or by a watcher on the
// control socket.
type ask struct {
	watcher *control.Watcher
	done    chan error   // gets the result, if there is no watcher and it is not nil
	wait    control.Wait // how long the watcher wants to be told
	back    *back        // to the previous generation
}

// watch is somebody who watches how this generation takes its predecessor's place.
type watch struct {
	watcher *control.Watcher
	wait    control.Wait
	undone  bool // asked for the generation before this one, which is gone back from
}

// lateWord is the end of a watch whose watcher is the successor's by then, or not.
type lateWord struct {
	watcher *control.Watcher
	ev      control.Event
}

// upgrades carries wishes out, one upgrade at a time. All that come during one are
// for the next. Watchers are told how it went: of a failure here, of a success by the
// new parent, who gets their connections at the commit.
type upgrades struct {
	p      *parent
	poke   chan struct{} // has room for one: a wish has come
	keeper keeper        // of this generation's binary; belongs to the goroutine of run

	mu       sync.Mutex
	waiting  []ask              // for the next upgrade
	current  []ask              // for the one that is under way
	watches  []watch            // of the upgrade that has led to this generation, until the last word about it
	given    []*control.Watcher // to the successor
	late     []lateWord         // what they are told if they come back
	last     *control.Outcome
	previous *previous // can be gone back to; nil: nothing can
	proven   bool      // this generation is what a later one goes back to
	began    time.Time // the upgrade that is under way
	ended    bool      // nothing is carried out any more

	over chan struct{} // closed with the last word about the upgrade that has led to this generation
}

func newUpgrades(p *parent) *upgrades {
	return &upgrades{p: p, poke: make(chan struct{}, 1), over: make(chan struct{})}
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
		switch {
		case a.back != nil: // which was meant for what is gone by now
			ev.Reason = "an upgrade has come first: ask again if that is to be undone"
		case a.watcher != nil:
			ev, err = control.Event{Result: control.Moved}, nil
		default:
			err = nil
			u.p.up.Relay(syscall.SIGHUP)
		}
	default:
	}
	switch {
	case a.watcher != nil:
		a.watcher.End(ev)
	case a.done != nil:
		a.done <- err
	}
}

// run carries wishes out until ctx ends, or this process has been replaced.
func (u *upgrades) run(ctx context.Context) {
	defer u.keeper.close()
	defer u.end()
	for {
		select {
		case <-u.poke:
		case <-ctx.Done():
			return
		}
		for u.next() {
			u.p.supervisor.look()
			if u.upgrade(ctx) == nil {
				return
			}
			u.p.supervisor.look()
		}
	}
}

// next takes up the wishes that have waited longest and are for the same.
func (u *upgrades) next() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	n := 0
	for n < len(u.waiting) && (u.waiting[n].back == nil) == (u.waiting[0].back == nil) {
		n++
	}
	u.current, u.waiting = u.waiting[:n:n], u.waiting[n:]
	return n > 0
}

// wayOf is the way back that wishes lead to, or nil. If one of them comes from a generation
// that has failed, that is what there is to say of it.
func wayOf(asks []ask) (way *back) {
	for _, a := range asks {
		if way == nil || a.back.fails() {
			way = a.back
		}
	}
	return way
}

// upgrade carries out one for all who wait.
func (u *upgrades) upgrade(ctx context.Context) error {
	p := u.p
	generation := p.up.Generation() + 1
	way := wayOf(u.current)
	u.begin()
	p.log.Info("upgrade begins", "new_generation", generation)
	if way != nil {
		u.step(fmt.Sprintf("generation %d begins, the way back", generation))
	} else {
		u.step(fmt.Sprintf("generation %d begins", generation))
	}
	p.metrics.UpgradeBegins(way != nil && way.Failed != 0)
	err := u.lead(ctx, way)
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
			if a.done != nil {
				a.done <- nil
			}
		}
		return nil
	}
	ev := failure(err)
	ev.Generation = generation
	if way.fails() {
		ev.Generation = way.Failed
		ev.Result, ev.Reason = control.Stopped, fmt.Sprintf("%s; and going back failed: %s", way.Reason, ev.Reason)
	}
	u.last = &control.Outcome{Time: time.Now(), Began: u.began, Generation: ev.Generation, Result: ev.Result, Reason: ev.Reason}
	p.metrics.UpgradeFails()
	p.upgraded(*u.last, ev.Output)
	u.mu.Unlock()
	if way.fails() {
		u.finish(ev)
	}
	p.memory.now()
	logged := false
	for _, a := range current {
		if a.watcher != nil {
			a.watcher.End(ev)
			continue
		}
		if a.done != nil {
			a.done <- err // the signals' actor logs it
			logged = true
		}
	}
	if !logged {
		p.log.Error("the upgrade that was asked for has failed", "error", err)
	}
	return err
}

// begin notes when the upgrade that is under way began.
func (u *upgrades) begin() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.began = time.Now()
}

// failure makes an event of an upgrade's error.
func failure(err error) control.Event {
	ev := control.Event{Result: control.Failed, Reason: err.Error()}
	var f *upgrader.FailedError
	if errors.As(err, &f) {
		ev.Output = f.Output
		short := *f
		short.Output = ""
		ev.Reason = short.Error()
	}
	return ev
}

// step tells those who watch the upgrade that is under way. The way back is also what
// becomes of the upgrade before it.
func (u *upgrades) step(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	ev := control.Event{Generation: u.p.up.Generation() + 1, Text: text}
	for _, a := range u.current {
		if a.watcher != nil {
			a.watcher.Tell(ev)
		}
		if a.back == nil {
			continue
		}
		for _, w := range u.watches {
			w.watcher.Tell(ev)
		}
	}
}

// rolled tells those who watch how this generation takes its predecessor's place.
func (u *upgrades) rolled(text string) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, w := range u.watches {
		w.watcher.Tell(control.Event{Generation: u.p.up.Generation(), Text: text})
	}
}

// end turns away whoever is left.
func (u *upgrades) end() {
	u.mu.Lock()
	u.ended = true
	left := append(u.current, u.waiting...)
	watches := u.watches
	u.current, u.waiting, u.watches = nil, nil, nil
	u.previous.close()
	u.previous = nil
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
	for _, w := range watches {
		if !given[w.watcher] {
			w.watcher.End(control.Event{Result: control.Stopped, Reason: "the service stops"})
		}
	}
}

// Names of watchers' connections on their way to the next parent: when they are to be
// told, and a Wait.
const (
	watchNow    = "watch:now/"    // of the upgrade that commits
	watchNext   = "watch:next/"   // of the one after it
	watchUndone = "watch:undone/" // of the one that is gone back from
)

// give returns all watchers' connections for the successor. A wish to go back, which has
// waited for an upgrade, stays here: it was meant for what is gone by then.
func (u *upgrades) give() (files []upgrader.NamedFile) {
	u.mu.Lock()
	defer u.mu.Unlock()
	add := func(kind string, wait control.Wait, w *control.Watcher) {
		if w == nil {
			return
		}
		f, err := w.Give()
		if err != nil {
			return // it has gone
		}
		files = append(files, upgrader.NamedFile{Name: fmt.Sprintf("%s%s/%d", kind, wait, len(files)), File: f})
		u.given = append(u.given, w)
	}
	before := watchNow
	if wayOf(u.current) != nil {
		before = watchUndone
	}
	for _, w := range u.watches {
		add(before, w.wait, w.watcher)
	}
	for _, a := range u.current {
		add(watchNow, a.wait, a.watcher)
	}
	for _, a := range u.waiting {
		if a.back == nil {
			add(watchNext, a.wait, a.watcher)
		}
	}
	return files
}

// takeBack forgets what was given: the successor is dead.
func (u *upgrades) takeBack() {
	u.mu.Lock()
	late := u.late
	u.given, u.late = nil, nil
	u.mu.Unlock()
	for _, l := range late {
		l.watcher.End(l.ev)
	}
}

// ends tells watchers the last word, but for those who are the successor's, or come back.
// The caller does not hold mu.
func (u *upgrades) ends(words []lateWord) {
	u.mu.Lock()
	now := words[:0:0]
	for _, l := range words {
		if slices.Contains(u.given, l.watcher) {
			u.late = append(u.late, l)
		} else {
			now = append(now, l)
		}
	}
	u.mu.Unlock()
	for _, l := range now {
		l.watcher.End(l.ev)
	}
}

// take goes on with a predecessor's watcher. It owns f.
func (u *upgrades) take(name string, f *os.File) {
	w, err := control.ResumeWatcher(f)
	if err != nil {
		u.p.log.Warn("somebody who watches the upgrade can't be told of it", "error", err)
		return
	}
	_, rest, _ := strings.Cut(name, "/")
	wait, _, _ := strings.Cut(rest, "/")
	if strings.HasPrefix(name, watchNext) {
		u.want(ask{watcher: w, wait: control.Wait(wait)})
		return
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	u.watches = append(u.watches, watch{watcher: w, wait: control.Wait(wait), undone: strings.HasPrefix(name, watchUndone)})
}

// canGoBack takes over what is to be gone back to, if there is anything. It owns exe,
// which may be nil.
func (u *upgrades) canGoBack(r *recipe, exe *os.File) {
	p := &previous{exe: exe}
	u.mu.Lock()
	defer u.mu.Unlock()
	if r == nil {
		p.close()
	} else {
		p.recipe = *r
		u.previous = p
	}
	u.proven = u.p.probation == nil      // nobody watches it
	u.p.supervisor.forgets(previousFile) // who has kept one keeps that, and not another
	if u.previous != nil && u.previous.exe != nil {
		u.p.supervisor.keeps(previousFile, u.previous.exe)
	}
}

// left is what a next parent needs to know if this one dies.
func (u *upgrades) left() (*wayBack, *control.Outcome) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var last *control.Outcome
	if u.last != nil && u.last.Result.Final() {
		o := *u.last
		last = &o
	}
	return u.previous.left(), last
}

// wayBack is the generation that can be gone back to, or 0.
func (u *upgrades) wayBack() int {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.previous == nil {
		return 0
	}
	return u.previous.Generation
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
