package state

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

type watcher func(context.Context, func(Found)) error

func (w watcher) Watch(ctx context.Context, report func(Found)) error { return w(ctx, report) }

// TestSourceEnds: a source that ends, fails or panics is begun again, not too often, and
// values that can't be are failures of it.
func TestSourceEnds(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		n := 0
		s := b.serve(watcher(func(_ context.Context, report func(Found)) error {
			report(Found{Value: "one"})
			switch n++; n % 3 {
			case 0:
				return errors.New("no luck")
			case 1:
				panic("no luck at all")
			}
			return nil
		}))
		v := b.follow(Options[string]{})
		time.Sleep(time.Hour)
		synctest.Wait()
		if n < 120 || n > 140 {
			t.Errorf("begun %d times in an hour", n)
		}
		if r := v.Get(); r.Value != "one" || !errors.Is(r.Err, ErrSource) {
			t.Errorf("%+v", r)
		}
		s.Close()
		v.Close()
	})
	for want, f := range map[string]Found{
		"the value: json":                {Value: make(chan int)},
		"the value has":                  {Value: strings.Repeat("x", MaxValue)},
		"the most is 256":                {Value: 1, Version: strings.Repeat("x", 257)},
		"no luck":                        {Err: errors.New("no luck"), Value: 5},
		"it is not JSON":                 {Value: []byte("{")},
		"a string is no JSON text":       {Value: "{}"},
		"json: error calling MarshalJSO": {Value: json.RawMessage("{")},
	} {
		inBubble(t, func(t *testing.T, b *bubble) {
			var src Source = watcher(func(ctx context.Context, report func(Found)) error {
				report(f)
				<-ctx.Done()
				return nil
			})
			if strings.Contains(want, "JSON") && !strings.Contains(want, "Marshal") {
				src = JSON(src)
			}
			s := b.serve(src)
			v, err := follow(t.Context(), b.origin(), Options[any]{Wait: time.Second}, b.clock)
			if v != nil || !errors.Is(err, ErrNone) || !errors.Is(err, ErrSource) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", want, err)
			}
			s.Close()
		})
	}
}

// TestDecode: what can't be decoded, or checked, does not take the place of what could.
func TestDecode(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		check := func(raw json.RawMessage) error {
			if strings.Contains(string(raw), "refused") {
				return errors.New("not this one")
			}
			return nil
		}
		s := b.serve(Check(b.poll(), check))
		opt := Options[string]{Decode: func(raw json.RawMessage) (v string, err error) {
			if strings.Contains(string(raw), "panic") {
				panic("what is that?")
			}
			return v, json.Unmarshal(raw, &v)
		}}
		v := b.follow(opt)
		for _, c := range []struct {
			value any
			err   error
			text  string
		}{{5, ErrDecode, "number"}, {"panic", ErrDecode, "what is that?"}, {"refused", ErrSource, "not this one"}} {
			changed := v.Changed()
			b.set(c.value, nil)
			time.Sleep(time.Minute)
			r := v.Get()
			if r.Value != "one" || !r.OK || !errors.Is(r.Err, c.err) || !strings.Contains(r.Err.Error(), c.text) || r.Age() < 50*time.Second {
				t.Errorf("%v: %+v, age %v", c.value, r, r.Age())
			}
			// Whoever starts now gets the last good one, if the agent was asked to check.
			opt.Wait = time.Second
			late, err := follow(t.Context(), b.origin(), opt, b.clock)
			if c.err == ErrSource {
				if err != nil || late.Get().Value != "one" {
					t.Errorf("%v: a new one: %v", c.value, err)
				}
				late.Close()
			} else if !errors.Is(err, ErrDecode) {
				t.Errorf("%v: a new one: %v", c.value, err)
			}
			v.Close()
			v = b.follow(opt0(b, opt)) // in its place
			select {
			case <-changed:
				t.Error("it is said to be another")
			default:
			}
		}
		s.Close()
		v.Close()
	})
}

// opt0 is opt, once the value is good again.
func opt0(b *bubble, opt Options[string]) Options[string] {
	b.set("one", nil)
	time.Sleep(5 * time.Second)
	return opt
}

// TestSlowRead: a value is as old as the question that it answers.
func TestSlowRead(t *testing.T) {
	inBubble(t, func(t *testing.T, b *bubble) {
		for _, src := range []Source{
			Poll(time.Minute, func(context.Context) (string, string, error) { time.Sleep(3 * time.Second); return "one", "", nil }),
			Check(watcher(func(ctx context.Context, report func(Found)) error {
				began := time.Now()
				time.Sleep(3 * time.Second)
				report(Found{Value: "one", At: began})
				<-ctx.Done()
				return nil
			}), func(json.RawMessage) error { return nil }),
		} {
			s := b.serve(src)
			v := b.follow(Options[string]{})
			if age := v.Get().Age(); age < 3*time.Second || age > 5*time.Second {
				t.Errorf("age %v", age)
			}
			s.Close()
			v.Close()
		}
	})
}
