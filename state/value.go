package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/handover-go/handover/message"
)

// Options says how a value is followed. The zero value is good.
type Options[T any] struct {
	// Decode makes a T of the value's JSON. Default: json.Unmarshal. If it fails, the
	// value stays the last that could be decoded. It is called by one goroutine at a
	// time.
	Decode func(value json.RawMessage) (T, error)
	// Fallback, if set, is the value as long as there is none: Follow does not fail
	// then, but returns after Wait, and goes on asking.
	Fallback *T
	// Wait is how long Follow waits for a first value. Default DefaultWait.
	Wait time.Duration
	// Beat is how often the value is confirmed, and how late a change is heard of at
	// worst, if the agent's word is lost or meant for another process. Default
	// DefaultBeat; a tenth more or less, so that not all ask at once.
	Beat time.Duration
	// Logger gets when the value begins to be in doubt, and when it is right again.
	// Default slog.Default().
	Logger *slog.Logger
}

// Reading is what Get returns: a value and what is known of it.
type Reading[T any] struct {
	// Value is shared by all who read it, so that nobody may change it.
	Value   T
	Version string // of the source; "" if OK is false
	// OK says that the Value comes from the source. Without it Value is the Fallback,
	// or zero.
	OK bool
	// Err is nil as long as all is well, and otherwise says why nobody knows whether
	// Value is still right: it wraps ErrNone, ErrSource, ErrDecode or ErrAgent.
	Err error
	// Since is when this process has had the Value first.
	Since time.Time

	seen    int64
	changed chan struct{}
	clock   func() int64
}

// Age is how long ago the source was looked at and had this value. It grows up to the
// source's interval and the Beat when all is well, and without end when the source, or the
// agent, can't be reached, or has only what can't be decoded. It is 0 if OK is false.
func (r Reading[T]) Age() time.Duration {
	if !r.OK {
		return 0
	}
	return time.Duration(max(0, r.clock()-r.seen))
}

// Value is a value that another process serves, as this one knows it. Its methods may be
// called from any goroutine.
type Value[T any] struct {
	origin Origin
	opt    Options[T]
	now    atomic.Pointer[Reading[T]]
	cancel context.CancelFunc
	wg     sync.WaitGroup
	clock  func() int64
}

// Follow returns a value that another process serves, or this one, when it has it. ctx
// and Options.Wait bound that wait; then, without a Fallback, the error wraps ErrNone and
// says what is missing, and nothing goes on. In a worker's app that is before it is ready,
// so that no client meets a worker without the value.
//
// From then on it is kept up to date until Close, or until the endpoint ends, which of a
// worker is after its drain.
func Follow[T any](ctx context.Context, from Origin, opt Options[T]) (*Value[T], error) {
	return follow(ctx, from, opt, now)
}

func follow[T any](ctx context.Context, from Origin, opt Options[T], clock func() int64) (*Value[T], error) {
	switch {
	case from == nil:
		return nil, bad("it is not said whom to follow")
	case opt.Beat < 0 || opt.Wait < 0:
		return nil, bad("beat %v and wait %v must not be negative", opt.Beat, opt.Wait)
	}
	if err := from.check(); err != nil {
		return nil, err
	}
	if opt.Beat == 0 {
		opt.Beat = DefaultBeat
	}
	if opt.Wait == 0 {
		opt.Wait = DefaultWait
	}
	if opt.Decode == nil {
		opt.Decode = func(raw json.RawMessage) (v T, err error) {
			err = json.Unmarshal(raw, &v)
			return v, err
		}
	}
	if opt.Logger == nil {
		opt.Logger = slog.Default()
	}
	v := &Value[T]{origin: from, opt: opt, clock: clock}
	first := &Reading[T]{Err: ErrNone, Since: time.Now(), changed: make(chan struct{}), clock: clock}
	if opt.Fallback != nil {
		first.Value = *opt.Fallback
	}
	v.now.Store(first)
	var lctx context.Context
	lctx, v.cancel = context.WithCancel(context.WithoutCancel(ctx))
	hopeless := make(chan struct{})
	v.wg.Go(func() { v.run(lctx, hopeless) })

	ctx, cancel := context.WithTimeout(ctx, opt.Wait)
	defer cancel()
	select {
	case <-first.changed:
	case <-hopeless:
	case <-ctx.Done():
	}
	r := v.Get()
	if r.OK || opt.Fallback != nil && !errors.Is(r.Err, message.ErrClosed) {
		return v, nil
	}
	v.Close()
	if r.Err == ErrNone {
		return nil, fmt.Errorf("%w: nobody has answered yet: %w", ErrNone, context.Cause(ctx))
	}
	if errors.Is(r.Err, ErrNone) {
		return nil, r.Err
	}
	return nil, fmt.Errorf("%w: %w", ErrNone, r.Err)
}

// Get returns the value as this process knows it. It does not wait.
func (v *Value[T]) Get() Reading[T] { return *v.now.Load() }

// Changed returns a channel that is closed when another value takes the place of that
// which Get returns now. Who asks for the channel first and then for the value misses
// none; of several that follow one another quickly only the last may be seen.
func (v *Value[T]) Changed() <-chan struct{} { return v.now.Load().changed }

// Close ends the following, and waits for it. Get goes on with the last value.
func (v *Value[T]) Close() {
	v.cancel()
	v.wg.Wait()
}

// firstAsk is how long after the first question, which brought nothing, the second one is
// asked; the next ones after twice that each time, up to the beat.
const firstAsk = 10 * time.Millisecond

// run asks and asks. hopeless is closed if it can't come to anything.
func (v *Value[T]) run(ctx context.Context, hopeless chan struct{}) {
	news, leave := v.origin.join()
	defer leave()
	var m memory
	for pause := firstAsk; ; pause = min(2*pause, v.opt.Beat) {
		offered := m.none
		a, err := v.origin.ask(ctx, m.request())
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			m.failed(err)
			v.publish(&m, nil)
			ended := errors.Is(err, message.ErrClosed)
			wrong := errors.Is(err, message.ErrAddress) || errors.Is(err, message.ErrRefused)
			if (ended || wrong && m.seen == "") && hopeless != nil {
				close(hopeless)
				hopeless = nil
			}
			if ended {
				return
			}
		} else {
			v.take(&m, a)
			if m.none && !offered && m.good.Version != "" {
				continue // it remembers nothing, and this one does
			}
		}
		wait := pause
		if m.err == nil {
			pause = firstAsk
			wait = v.opt.Beat/10*9 + rand.N(v.opt.Beat/5+1)
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-news:
			t.Stop()
		case <-ctx.Done():
			t.Stop()
			return
		}
	}
}

// take takes in an answer.
func (v *Value[T]) take(m *memory, a answer) {
	var next T
	changed := m.take(a, v.clock(), func(raw json.RawMessage) error {
		return safely(func() (err error) {
			next, err = v.opt.Decode(raw)
			return err
		})
	})
	if changed {
		v.publish(m, &next)
	} else {
		v.publish(m, nil)
	}
}

// publish shows what is known; value is another one, if there is.
func (v *Value[T]) publish(m *memory, value *T) {
	old := v.now.Load()
	r := *old
	r.Err = m.err
	if m.good.Version != "" {
		r.seen = m.good.At
	}
	if value != nil {
		r.Value, r.Version, r.OK = *value, m.good.Version, true
		r.Since, r.changed = time.Now(), make(chan struct{})
	}
	v.now.Store(&r)
	if value != nil {
		close(old.changed)
	}
	switch {
	case r.Err != nil && old.Err == nil:
		v.opt.Logger.Warn("a shared value is in doubt, and stays what it was", "version", r.Version, "age", r.Age(), "error", r.Err)
	case r.Err == nil && old.Err != nil && old.OK:
		v.opt.Logger.Info("a shared value is right again", "version", r.Version)
	}
}
