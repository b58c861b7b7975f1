package state

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/handover-go/handover/message"
)

// A source that ends is begun again after firstPause, and twice that each time, up to
// lastPause; one that went well for that long begins anew.
const (
	firstPause = 100 * time.Millisecond
	lastPause  = 30 * time.Second
)

// Server is what tells others a value: the agent's part. Its methods may be called from
// any goroutine.
type Server struct {
	e      *message.Endpoint
	name   string
	src    Source
	log    *slog.Logger
	clock  func() int64
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup
	poke   chan struct{} // cap 1: there may be somebody to tell

	mu    sync.Mutex
	book  *book
	local map[chan struct{}]bool // of those who follow in this process
}

// Serve begins to look at a source and to answer those who follow the value of that
// name, a word of the caller's. Call it before the worker is ready, in one process of
// the service: usually in a group of one, an agent. It does not wait for a value; there
// being none yet is not an error here, but one of Follow's if it lasts.
//
// log gets when the source begins to fail and when it works again; nil is
// slog.Default(). The error wraps ErrConfig.
func Serve(e *message.Endpoint, name string, src Source, log *slog.Logger) (*Server, error) {
	return serve(e, name, src, log, now)
}

func serve(e *message.Endpoint, name string, src Source, log *slog.Logger, clock func() int64) (*Server, error) {
	if e == nil {
		return nil, bad("there is no endpoint")
	}
	if err := checkName(name); err != nil {
		return nil, err
	}
	if err := validate(src); err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.Default()
	}
	s := &Server{
		e: e, name: name, src: src, log: log.With("state", name), clock: clock,
		poke: make(chan struct{}, 1), book: newBook(), local: map[chan struct{}]bool{},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	e.Handle(typeGet(name), s.handle)
	s.wg.Go(s.watch)
	s.wg.Go(s.notify)
	return s, nil
}

// Close ends it, and waits until the source has ended. Who follows goes on with what it
// has, and asks whoever serves next.
func (s *Server) Close() {
	s.e.Handle(typeGet(s.name), nil)
	s.cancel()
	s.wg.Wait()
}

// watch keeps the source going.
func (s *Server) watch() {
	for pause := firstPause; ; pause = min(2*pause, lastPause) {
		began := time.Now()
		err := safely(func() error { return s.src.Watch(s.ctx, s.found) })
		if s.ctx.Err() != nil {
			return
		}
		if err == nil {
			err = errors.New("it has ended")
		}
		s.found(Found{Err: err})
		if time.Since(began) > lastPause {
			pause = firstPause
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return
		}
	}
}

// found takes in what the source reports.
func (s *Server) found(f Found) {
	e := entry{At: s.clock(), Version: f.Version}
	if !f.At.IsZero() {
		e.At -= int64(max(0, time.Since(f.At)))
	}
	err := f.Err
	if err == nil {
		e.Value, err = encode(f)
	}
	if err == nil && e.Version == "" {
		e.Version = digest(e.Value)
	}
	s.mu.Lock()
	failed, changed := s.book.err != "", false
	if err != nil {
		s.book.failed(err.Error())
	} else if changed = s.book.found(e); changed {
		s.tell()
	}
	fails := s.book.err != ""
	s.mu.Unlock()
	switch { // without the lock: whoever reads the log may be slow
	case fails && !failed:
		s.log.Warn("the source fails: the value stays what it was", "error", err)
	case failed && !fails:
		s.log.Info("the source works again")
	}
	if changed {
		s.log.Debug("a new value", "version", e.Version, "bytes", len(e.Value))
	}
}

// encode is a value as JSON, within the bounds.
func encode(f Found) (json.RawMessage, error) {
	raw, err := json.Marshal(f.Value)
	if err != nil {
		return nil, fmt.Errorf("the value: %w", err)
	}
	if len(raw) > MaxValue {
		return nil, fmt.Errorf("the value has %d bytes as JSON, the most is %d", len(raw), MaxValue)
	}
	if len(f.Version) > MaxVersion {
		return nil, fmt.Errorf("version %.20q…: %d bytes, the most is %d", f.Version, len(f.Version), MaxVersion)
	}
	return raw, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:16])
}

// tell has all be told. The lock is held.
func (s *Server) tell() {
	poke(s.poke)
	for c := range s.local {
		poke(c)
	}
}

func poke(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// handle answers a follower.
func (s *Server) handle(_ context.Context, m *message.Message) (any, error) {
	var r request
	if err := m.Decode(&r); err != nil {
		return nil, err
	}
	return s.answer(slot{m.From.Group, m.From.Slot}, r), nil
}

func (s *Server) answer(from slot, r request) answer {
	s.mu.Lock()
	defer s.mu.Unlock()
	seq := s.book.seq
	a := s.book.answer(from, r, s.clock())
	if s.book.seq != seq {
		s.tell()
	} else if a.None {
		poke(s.poke)
	}
	return a
}

// notify tells the followers in other processes that there is something new. That is a
// word without the value, which each fetches when it likes: so nothing queues up at a
// follower that is slow.
func (s *Server) notify() {
	for {
		for more := true; more; {
			s.mu.Lock()
			to, ok := s.book.next()
			group, forgot := s.book.recall()
			s.mu.Unlock()
			if ok {
				s.wg.Go(func() { s.notice(to) })
			}
			if forgot {
				s.wg.Go(func() { s.recall(group) })
			}
			more = ok
		}
		select {
		case <-s.poke:
		case <-s.ctx.Done():
			return
		}
	}
}

// recall has the followers of a group ask.
func (s *Server) recall(group string) {
	_ = s.e.Send(s.ctx, message.Group(group), typeNew(s.name), nil) // else they ask at their beat
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.recalled()
	poke(s.poke)
}

func (s *Server) notice(to slot) {
	err := s.e.Send(s.ctx, message.Slot(to.group, to.n), typeNew(s.name), nil)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.book.noticed(to, errors.Is(err, message.ErrAddress) || errors.Is(err, message.ErrUnhandled))
	poke(s.poke)
}

// ask, join and check make it the Origin of those who follow in this process.
func (s *Server) ask(_ context.Context, r request) (answer, error) {
	if s.ctx.Err() != nil {
		return answer{}, errors.New("it has been closed")
	}
	return s.answer(slot{}, r), nil
}

func (s *Server) join() (news <-chan struct{}, leave func()) {
	c := make(chan struct{}, 1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.local[c] = true
	return c, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.local, c)
	}
}

func (s *Server) check() error { return nil }
