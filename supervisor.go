package handover

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/sdnotify"
)

// supervisor is the parent's conversation with who supervises it.
type supervisor struct {
	p     *parent
	talk  conversation
	gives atomic.Bool   // this process yields to another
	news  chan struct{} // cap 1: there may be something to say
	stops chan struct{} // closed when the service stops: that can't wait
	quit  chan struct{}
	once  sync.Once // of stop
	ended sync.WaitGroup
	mute  atomic.Bool // the last note could not be sent

	keeping keeping
}

// newSupervisor reads what the supervisor wants to hear. An error is about the
// environment.
func newSupervisor(p *parent) (*supervisor, error) {
	watchdog, err := sdnotify.Watchdog()
	if err != nil {
		return nil, err
	}
	return &supervisor{p: p, talk: conversation{watchdog: watchdog, hung: anchor.Hung()}, news: make(chan struct{}, 1), stops: make(chan struct{}), quit: make(chan struct{}), keeping: keeping{more: make(chan struct{}, 1)}}, nil
}

// begin talks until end. Only the main process may (NotifyAccess=main): the first one of
// a service at once, others when they have been named.
func (s *supervisor) begin() {
	if sdnotify.Enabled() {
		s.ended.Go(s.run)
		s.ended.Go(s.runKeeping)
	}
}

// look says that something has happened. It does not wait.
func (s *supervisor) look() {
	select {
	case s.news <- struct{}{}:
	default:
	}
}

// stop says that the service stops. It does not wait.
func (s *supervisor) stop() {
	s.once.Do(func() { close(s.stops) })
	s.look()
}

// end stops talking, but for what has not been said yet of a stop that was quick.
func (s *supervisor) end() {
	close(s.quit)
	s.ended.Wait()
	if sdnotify.Enabled() && s.stopping() && !s.gives.Load() && !s.talk.stopping {
		s.send([]string{"STOPPING=1"})
	}
}

func (s *supervisor) stopping() bool {
	select {
	case <-s.stops:
		return true
	default:
		return false
	}
}

func (s *supervisor) run() {
	for {
		notes, again := s.talk.say(s.view(), time.Now())
		s.send(notes)
		timer := time.NewTimer(again)
		select {
		case <-s.news:
			timer.Stop()
			if len(notes) > 0 {
				s.pause()
			}
		case <-timer.C:
		case <-s.quit:
			timer.Stop()
			return
		}
	}
}

// pause lets what follows come together.
func (s *supervisor) pause() {
	timer := time.NewTimer(pace)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-s.stops:
	case <-s.quit:
	}
}

// answerTime is how long the set's loop may take to answer before it counts as hung, if
// nothing says how long.
const answerTime = 5 * time.Second

func (s *supervisor) view() (v view) {
	patience := answerTime
	if s.talk.watchdog > 0 {
		patience = s.talk.watchdog / 4
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if s.talk.watchdog > 0 {
		s.p.set.Refresh(ctx)
		ctx, cancel = context.WithTimeout(context.Background(), patience)
		defer cancel()
	}
	var err error
	v.decides, v.gives = s.p.decides.Load(), s.gives.Load()
	v.Status, err = s.p.set.Status(ctx)
	v.answers = err == nil
	v.Stopping = v.Stopping || s.stopping()
	v.last, v.upgrading = s.p.upgrades.outcome()
	return v
}

func (s *supervisor) send(notes []string) {
	if len(notes) == 0 {
		return
	}
	err := sdnotify.Send(notes...)
	if err != nil && !s.mute.Load() {
		s.p.log.Warn("the supervisor could not be told how the service is", "error", err)
	}
	s.mute.Store(err != nil)
}
