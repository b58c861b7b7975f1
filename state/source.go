package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"runtime/debug"
	"time"
)

// Source looks at the truth. See Poll, File and Dir.
type Source interface {
	// Watch reports what it sees, first of all what there is, until ctx ends. It may
	// report the same again, which says that it is still so: how old a value is counts
	// from that. report does not wait, may be called from any goroutine until Watch
	// returns, and of what it is told only the newest counts.
	//
	// When Watch returns although ctx has not ended, or panics, that is a failure of
	// the source, and it is called again after a while, 100 ms to 30 s.
	Watch(ctx context.Context, report func(Found)) error
}

// Found is what a Source has seen.
type Found struct {
	// Value is anything that json.Marshal takes. It is read before report returns.
	Value any
	// Version tells one value from another: values of the same version are taken to
	// be the same. Default: a hash of the value. At most MaxVersion bytes.
	Version string
	// Err, instead of the other two, says that the truth can't be seen at present.
	Err error
	// At is when it began to look, as time.Now had it. Default: now.
	At time.Time
}

// Poll is a Source that asks at an interval, and at once at the beginning. What read
// returns as version may be "", see Found. Its context ends after the interval, but not
// before a second: a read that ignores that holds up the next one, and the age of the
// value tells.
func Poll[T any](interval time.Duration, read func(ctx context.Context) (value T, version string, err error)) Source {
	return &poll{interval: interval, read: func(ctx context.Context) (any, string, error) { return read(ctx) }}
}

type poll struct {
	interval time.Duration
	read     func(context.Context) (any, string, error)
}

func (p *poll) validate() error {
	if p.interval <= 0 {
		return bad("poll every %v: the interval must be positive", p.interval)
	}
	return nil
}

func (p *poll) Watch(ctx context.Context, report func(Found)) error {
	tick := time.NewTicker(p.interval)
	defer tick.Stop()
	for {
		f := Found{At: time.Now()}
		rctx, cancel := context.WithTimeout(ctx, max(p.interval, time.Second))
		f.Value, f.Version, f.Err = p.read(rctx)
		cancel()
		if ctx.Err() != nil {
			return nil
		}
		report(f)
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// Check is a Source that takes a value from src only if check returns nil for it, and
// otherwise says that the source fails: so a bad value never gets to the workers, nor to
// those that are started while it stands there.
func Check(src Source, check func(value json.RawMessage) error) Source {
	return &filter{src: src, change: func(v any) (any, error) {
		raw, err := json.Marshal(v)
		if err == nil {
			err = check(raw)
		}
		return json.RawMessage(raw), err
	}}
}

// JSON is a Source for a src whose values are JSON text in a []byte, such as File's. The
// value is what the text means. Text that is not JSON, as a file that is written in
// place has for a moment, is a failure of the source.
func JSON(src Source) Source {
	return &filter{src: src, change: func(v any) (any, error) {
		text, ok := v.([]byte)
		if !ok {
			return nil, fmt.Errorf("a %T is no JSON text", v)
		}
		if !json.Valid(text) {
			return nil, errors.New("it is not JSON")
		}
		return json.RawMessage(text), nil
	}}
}

type filter struct {
	src    Source
	change func(any) (any, error)
}

func (f *filter) validate() error { return validate(f.src) }

func (f *filter) Watch(ctx context.Context, report func(Found)) error {
	return f.src.Watch(ctx, func(found Found) {
		if found.Err == nil {
			if found.At.IsZero() {
				found.At = time.Now()
			}
			found.Value, found.Err = f.change(found.Value)
		}
		report(found)
	})
}

// validate says what is wrong with a source of this package.
func validate(src Source) error {
	if src == nil {
		return bad("there is no source")
	}
	if v, ok := src.(interface{ validate() error }); ok {
		return v.validate()
	}
	return nil
}

// safely calls a function of somebody's; a panic of it is an error.
func safely(fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v\n%s", p, debug.Stack())
		}
	}()
	return fn()
}
