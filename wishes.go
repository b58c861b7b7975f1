package handover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// wish is what somebody has asked for on the control socket, and waits for.
type wish struct {
	control.Wish
	watcher *control.Watcher
	found   bool // Worker is the pid of one that there was
	rolled  bool // an upgrade has come in between: all workers from before it are replaced
	given   bool // its watcher's connection, to the successor
}

// wishes carries out what is asked for, each wish in a goroutine of its own. An upgrade
// that commits meanwhile takes them along: the next parent goes on with them. While it is
// not known which of both decides, they wait.
type wishes struct {
	p      *parent
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	running map[*wish]bool
	held    chan struct{} // closed when this process decides again; nil: it does
	ended   bool          // nothing is carried out any more
}

func newWishes(p *parent) *wishes {
	ws := &wishes{p: p, running: map[*wish]bool{}}
	ws.ctx, ws.cancel = context.WithCancel(context.Background())
	return ws
}

// Act is what a watcher asks for.
func (p *parent) Act(w control.Wish, watcher *control.Watcher) {
	p.log.Info("asked for on the control socket", "what", string(w.Verb), "worker", w.Worker, "group", w.Group, "count", w.Count)
	if w.Verb == control.Stop {
		p.stops.want(w, watcher)
		return
	}
	p.wishes.begin(&wish{Wish: w, watcher: watcher})
}

// begin carries a wish out. It does not wait.
func (ws *wishes) begin(w *wish) {
	ws.mu.Lock()
	ended := ws.ended
	if !ended {
		ws.running[w] = true
		ws.wg.Go(func() { ws.run(w) })
	}
	ws.mu.Unlock()
	if ended {
		ws.turnAway(w, control.Failed)
	}
}

// run carries a wish out, unless another process does.
func (ws *wishes) run(w *wish) {
	var err error
	for done := false; !done; {
		if !ws.decides() {
			ws.turnAway(w, control.Stopped)
			return
		}
		if err = ws.carryOut(w); ws.ctx.Err() == nil && !errors.Is(err, workerset.ErrGivenAway) {
			done = ws.take(w)
		}
	}
	ev := control.Event{Generation: ws.p.up.Generation(), Result: control.Done}
	if err != nil {
		ev.Result, ev.Reason = control.Failed, strings.TrimPrefix(err.Error(), "workerset: ")
	}
	if errors.Is(err, workerset.ErrRollStopped) || errors.Is(err, workerset.ErrEnded) {
		ev.Result = control.Stopped
	}
	w.watcher.End(ev)
}

// decides waits until this process decides, and returns false when it won't.
func (ws *wishes) decides() bool {
	for {
		ws.mu.Lock()
		held := ws.held
		ws.mu.Unlock()
		if held == nil {
			return ws.ctx.Err() == nil
		}
		select {
		case <-held:
		case <-ws.ctx.Done():
			return false
		}
	}
}

// take takes a wish off the list that is to be answered, unless the successor may do so.
func (ws *wishes) take(w *wish) bool {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	if !w.given {
		delete(ws.running, w)
	}
	return !w.given
}

// turnAway answers a wish that this process does not carry out.
func (ws *wishes) turnAway(w *wish, result control.Result) {
	ws.mu.Lock()
	delete(ws.running, w)
	given := w.given
	ws.mu.Unlock()
	ev := control.Event{Result: result, Reason: upgrader.ErrStopped.Error()}
	if isClosed(ws.p.up.Replaced()) {
		if given {
			w.watcher.Drop()
			return
		}
		ev = control.Event{Result: control.Moved}
	}
	w.watcher.End(ev)
}

// carryOut does what is wished, and waits until it is true.
func (ws *wishes) carryOut(w *wish) error {
	set := ws.p.set
	switch w.Verb {
	case control.Reopen:
		return set.Reopen(ws.ctx)
	case control.Scale:
		return set.Scale(ws.ctx, cmp.Or(w.Group, ws.p.cfg.mainGroup()), w.Count)
	}
	if w.Verb == control.Restart && w.rolled {
		return set.Ready(ws.ctx)
	}
	if w.Worker == "" {
		return set.Restart(ws.ctx)
	}
	which, err := workerset.ParseWhich(w.Worker)
	if err == nil && w.Verb == control.Restart {
		return set.RestartWorker(ws.ctx, which)
	}
	if err == nil && !w.found {
		which, err = ws.find(w, which)
	}
	if err != nil {
		return err
	}
	act := set.DrainWorker
	if w.Verb == control.Kill {
		act = set.KillWorker
	}
	if err = act(ws.ctx, which); errors.Is(err, workerset.ErrNoWorker) {
		return set.Ready(ws.ctx) // it has gone meanwhile
	}
	return err
}

// find makes a pid of the name of a worker that is to go: by and by the name is another's.
func (ws *wishes) find(w *wish, which workerset.Which) (workerset.Which, error) {
	x, err := ws.p.set.FindWorker(ws.ctx, which, w.Verb == control.Drain)
	if err != nil {
		return which, err
	}
	ws.mu.Lock()
	w.found, w.Worker = true, strconv.Itoa(x.Pid)
	ws.mu.Unlock()
	w.watcher.Tell(control.Event{Text: fmt.Sprintf("worker %s/%d, pid %d", x.Group, x.Slot, x.Pid)})
	return workerset.Which{Pid: x.Pid}, nil
}

// tell tells all who watch.
func (ws *wishes) tell(text string) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.running {
		w.watcher.Tell(control.Event{Generation: ws.p.up.Generation(), Text: text})
	}
}

// end turns all away who are left, and waits for it.
func (ws *wishes) end() {
	ws.mu.Lock()
	ws.ended = true
	ws.mu.Unlock()
	ws.cancel()
	ws.wg.Wait()
}

// hold lets nobody begin, or be answered by, something that another process may decide
// about, until release.
func (ws *wishes) hold() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	ws.held = make(chan struct{})
}

// release is the end of hold: this process decides again.
func (ws *wishes) release() {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	for w := range ws.running {
		w.given = false
	}
	close(ws.held)
	ws.held = nil
}

// givenWish is a wish on its way to the next parent. It is versioned by adding fields only.
type givenWish struct {
	control.Wish
	Found bool `json:"found,omitempty"`
}

// watchWish begins the names of their watchers' connections.
const watchWish = "watch:wish/"

// give returns the watchers' connections for the successor, and what they wait for, by the
// connections' names. A program of before there were wishes takes them for watchers of its
// upgrade.
func (ws *wishes) give() (files []upgrader.NamedFile, given map[string]givenWish) {
	ws.mu.Lock()
	defer ws.mu.Unlock()
	given = map[string]givenWish{}
	for w := range ws.running {
		f, err := w.watcher.Give()
		if err != nil {
			continue // it has gone
		}
		w.given = true
		name := fmt.Sprintf("%s%d", watchWish, len(files))
		given[name] = givenWish{w.Wish, w.found}
		files = append(files, upgrader.NamedFile{Name: name, File: f})
	}
	return files, given
}

// resume goes on with a predecessor's wish. It owns f.
func (ws *wishes) resume(f *os.File, g givenWish) {
	watcher, err := control.ResumeWatcher(f)
	if err != nil {
		ws.p.log.Warn("somebody who waits on the control socket can't be told how it ends", "error", err)
		return
	}
	ws.begin(&wish{Wish: g.Wish, watcher: watcher, found: g.Found, rolled: true})
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}
