package handover

import (
	"fmt"
	"strings"
	"sync"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/workerset"
)

// stops are those who have asked on the control socket that the service stops, and wait
// until it is gone: their connections end with this process.
type stops struct {
	p     *parent
	asked chan struct{} // closed at the first
	over  chan struct{} // closed by interrupt
	once  sync.Once

	mu       sync.Mutex
	watchers []*control.Watcher
	now      bool
	alive    int // workers
	ended    bool
}

func newStops(p *parent) *stops {
	return &stops{p: p, asked: make(chan struct{}), over: make(chan struct{})}
}

// want begins a stop, as SIGTERM does, or with Now as the second one. It does not wait.
func (s *stops) want(w control.Wish, watcher *control.Watcher) {
	s.mu.Lock()
	ended, alive := s.ended, s.alive
	if !ended {
		s.watchers = append(s.watchers, watcher)
		s.now = s.now || w.Now
	}
	s.mu.Unlock()
	if ended || isClosed(s.p.up.Replaced()) {
		s.answer(watcher, nil)
		return
	}
	text := plural(alive, "worker drains", "workers drain")
	switch {
	case w.Now:
		text = plural(alive, "worker is killed", "workers are killed")
		s.p.set.Kill()
	case s.p.cfg.StopDelay > 0:
		text = fmt.Sprintf("%s on for %v", plural(alive, "worker serves", "workers serve"), s.p.cfg.StopDelay)
	}
	watcher.Tell(control.Event{Text: text})
	s.once.Do(func() { close(s.asked) })
}

// actor ends the parent's group when somebody asks.
func (s *stops) actor() (execute func() error, interrupt func(error)) {
	return func() error {
		select {
		case <-s.asked:
			return signals.ErrStop
		case <-s.over:
			return nil
		}
	}, func(error) { close(s.over) }
}

// observe counts the workers, and tells who waits.
func (s *stops) observe(c workerset.Change) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.From == "spawning" {
		s.alive++
	}
	w := c.Worker
	does := "is " + w.State
	switch w.State {
	case "exited":
		s.alive--
		does = fmt.Sprintf("has ended, %d left", s.alive)
	case "draining":
		does = "drains"
	}
	for _, watcher := range s.watchers {
		watcher.Tell(control.Event{Text: fmt.Sprintf("worker %s/%d, pid %d, %s", w.Group, w.Slot, w.Pid, does)})
	}
}

// end tells how the workers have ended, which err says, too, if it was not in order.
func (s *stops) end(err error) {
	s.mu.Lock()
	s.ended = true
	watchers := s.watchers
	s.mu.Unlock()
	for _, w := range watchers {
		s.answer(w, err)
	}
}

func (s *stops) answer(w *control.Watcher, err error) {
	if isClosed(s.p.up.Replaced()) {
		w.End(control.Event{Result: control.Moved})
		return
	}
	r := s.p.set.StopReport()
	ev := control.Event{Result: control.Done, Text: summary(r)}
	switch {
	case err != nil:
		ev.Result, ev.Reason = control.Stopped, err.Error()
	case !s.now && r.Terminated+r.Killed > 0:
		ev.Result, ev.Reason = control.Stopped, "not all workers have ended by themselves: "+ev.Text
	}
	w.Leave(ev)
}

// summary is how the workers have ended.
func summary(r workerset.Report) string {
	var parts []string
	add := func(n int, text string) {
		if n > 0 {
			parts = append(parts, text)
		}
	}
	add(r.Exited, plural(r.Exited, "worker has ended by itself", "workers have ended by themselves"))
	add(r.Terminated, plural(r.Terminated, "was told to exit because its time was up", "were told to exit because their time was up"))
	add(r.Killed, plural(r.Killed, "was killed", "were killed"))
	add(r.Cut, plural(r.Cut, "connection was cut", "connections were cut"))
	if len(parts) == 0 {
		return "there were no workers"
	}
	return strings.Join(parts, ", ")
}

func plural(n int, one, more string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, more)
}
