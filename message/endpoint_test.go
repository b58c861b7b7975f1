package message

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// TestOrder: messages of one sender one after the other, those of others meanwhile.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		hold := map[int]chan struct{}{1: make(chan struct{}), 2: make(chan struct{})}
		l.e.Handle("wait", func(_ context.Context, m *Message) (any, error) {
			if m.From.Generation != 1 || m.From.ID != m.From.Slot || m.From.Group != "w" || m.Type != "wait" {
				t.Errorf("%+v", m)
			}
			<-hold[m.From.Slot]
			return nil, nil
		})
		l.receive(1, 1, "wait")
		l.receive(2, 1, "wait")
		l.receive(3, 2, "wait")
		l.receive(4, 1, "wait")
		synctest.Wait()
		l.want(t)
		if n := l.e.Busy(); n != 2 {
			t.Errorf("%d handlers run", n)
		}
		hold[2] <- struct{}{}
		synctest.Wait()
		l.want(t, "done 3 ")
		for _, want := range []string{"done 1 ", "done 2 ", "done 4 "} {
			hold[1] <- struct{}{}
			synctest.Wait()
			l.want(t, want)
		}
		if len(l.e.lanes) != 0 || l.e.Busy() != 0 {
			t.Errorf("%d lanes left", len(l.e.lanes))
		}
	})
}

// TestHandlers: whatever a handler does, its message has one result.
func TestHandlers(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		h          Handler
		why        wire.Why
		data, text string
	}{
		"answers":          {func(_ context.Context, m *Message) (any, error) { return m.Data, nil }, "", "1", ""},
		"no answer":        {func(context.Context, *Message) (any, error) { return nil, nil }, "", "", ""},
		"error":            {func(context.Context, *Message) (any, error) { return 1, errors.New("bad") }, wire.WhyHandler, "", "bad"},
		"panic":            {func(context.Context, *Message) (any, error) { panic("oh") }, wire.WhyHandler, "", "panic: oh\n"},
		"nil panic":        {func(context.Context, *Message) (any, error) { panic(nil) }, wire.WhyHandler, "", "panic: panic called with nil"},
		"no JSON":          {func(context.Context, *Message) (any, error) { return func() {}, nil }, wire.WhyHandler, "", "json: unsupported type"},
		"JSON panics":      {func(context.Context, *Message) (any, error) { return bomb{}, nil }, wire.WhyHandler, "", "panic: marshalled"},
		"error panics":     {func(context.Context, *Message) (any, error) { return nil, bomb{} }, wire.WhyHandler, "", "panic: error"},
		"ends itself":      {func(context.Context, *Message) (any, error) { runtime.Goexit(); return nil, nil }, wire.WhyHandler, "", "it ended its goroutine"},
		"too large":        {func(context.Context, *Message) (any, error) { return strings.Repeat("x", MaxData), nil }, wire.WhyHandler, "", "its data has"},
		"says too much":    {func(context.Context, *Message) (any, error) { return nil, errors.New(strings.Repeat("x", 1<<20)) }, wire.WhyHandler, "", "xxx"},
		"nobody handles":   {nil, wire.WhyUnhandled, "", ""},
		"the largest":      {func(context.Context, *Message) (any, error) { return strings.Repeat("x", MaxData-2), nil }, "", `"xxx`, ""},
		"what grows (<<<)": {func(context.Context, *Message) (any, error) { return json.RawMessage(`"<"`), nil }, "", `"\u003c"`, ""},
	} {
		l := newFake()
		l.e.Handle("x", func(context.Context, *Message) (any, error) { panic("replaced") })
		l.e.Handle("x", c.h)
		l.receive(1, 1, "x")
		l.receive(2, 1, "none")
		l.e.wg.Wait()
		if got, want := l.heard(), []string{fmt.Sprint("done 1 ", c.why), "done 2 unhandled"}; !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		if got := string(l.data[1]); !strings.HasPrefix(got, c.data) || c.data == "" && got != "" {
			t.Errorf("%s: %.100q", name, got)
		}
		if got := l.text[1]; !strings.HasPrefix(got, c.text) || c.text == "" && got != "" || len(got) > maxText {
			t.Errorf("%s: %.100q", name, got)
		}
		if line, err := json.Marshal(wire.Result{Cmd: wire.CmdDone, N: 1 << 40, Data: l.data[1], Text: l.text[1]}); err != nil || len(line) > wire.MaxLine {
			t.Errorf("%s: %d bytes, %v", name, len(line), err)
		}
		l.e.Close(nil)
	}
}

type bomb struct{}

func (bomb) MarshalJSON() ([]byte, error) { panic("marshalled") }
func (bomb) Error() string                { panic("error") }

// TestWrong: what is wrong is not sent, and the files stay the caller's.
func TestWrong(t *testing.T) {
	wantFDs(t)
	l := newFake()
	f := pipes(t, 1)[0]
	ctx := t.Context()
	for name, err := range map[string]error{
		"no address":     l.e.Send(ctx, Address{}, "x", nil, f),
		"no group":       l.e.Send(ctx, Group(""), "x", nil, f),
		"no slot":        l.e.Send(ctx, Slot("a", 0), "x", nil, f),
		"long group":     l.e.Send(ctx, Any(strings.Repeat("x", 257)), "x", nil, f),
		"no type":        l.e.Send(ctx, Parent(), "", nil, f),
		"long type":      l.e.Send(ctx, Parent(), strings.Repeat("x", 257), nil, f),
		"no JSON":        l.e.Send(ctx, Parent(), "x", make(chan int), f),
		"bad JSON":       l.e.Send(ctx, Parent(), "x", json.RawMessage("{"), f),
		"large":          l.e.Send(ctx, Parent(), "x", strings.Repeat("x", MaxData-1), f),
		"no file":        l.e.Send(ctx, Parent(), "x", nil, f, nil),
		"many files":     l.e.Send(ctx, Parent(), "x", nil, slices.Repeat([]*os.File{f}, MaxFiles+1)...),
		"several answer": l.e.Request(ctx, All(), "x", nil, nil, f),
	} {
		var d *DeliveryError
		if !errors.Is(err, ErrRefused) || !errors.As(err, &d) || d.Text == "" {
			t.Errorf("%s: %v", name, err)
		}
	}
	if !isOpen(f) || l.count() != 0 {
		t.Error("something was sent, or closed")
	}
	// The largest of all fits a line.
	go func() {
		_ = l.e.Send(ctx, Slot(strings.Repeat("\x01", 256), 1<<40), strings.Repeat("\x01", 256), strings.Repeat("x", MaxData-2))
	}()
	for l.count() == 0 {
		time.Sleep(time.Millisecond)
	}
	if line, err := json.Marshal(l.sent[0]); err != nil || len(line) > wire.MaxLine {
		t.Errorf("%d bytes, %v", len(line), err)
	}
	l.e.Close(nil)
}

// TestResults: each reason is an error of its own, and the answer is read.
func TestResults(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		n := 0
		request := func(answer any, r wire.Result) error {
			errs := make(chan error, 1)
			go func() { errs <- l.e.Request(t.Context(), Slot("a", 1), "x", "data", answer) }()
			synctest.Wait()
			n++
			r.N = n
			l.e.Result(r)
			l.e.Result(r) // once is enough
			return <-errs
		}
		for why, want := range map[wire.Why]error{
			wire.WhyHandler: ErrHandler, wire.WhyUnhandled: ErrUnhandled, wire.WhyAddress: ErrAddress, wire.WhyGone: ErrGone,
			wire.WhyLost: ErrLost, wire.WhyRefused: ErrRefused, "of a later version": ErrLost,
		} {
			err := request(nil, wire.Result{Why: why, Text: "because"})
			if !errors.Is(err, want) || !strings.Contains(err.Error(), `message "x" to a/1: `) || !strings.HasSuffix(err.Error(), ": because") {
				t.Errorf("%q: %v", why, err)
			}
		}
		var answer []int
		if err := request(&answer, wire.Result{Data: json.RawMessage("[1,2]")}); err != nil || !slices.Equal(answer, []int{1, 2}) {
			t.Errorf("%v, %v", answer, err)
		}
		if err := request(&answer, wire.Result{}); err != nil || answer != nil {
			t.Errorf("no answer: %v, %v", answer, err)
		}
		if err := request(&answer, wire.Result{Data: json.RawMessage(`"x"`)}); err == nil || !strings.Contains(err.Error(), "the answer") {
			t.Errorf("another answer: %v", err)
		}
		if m := l.sent[0]; m.Cmd != wire.CmdMessage || m.N != 1 || string(m.Data) != `"data"` || m.Type != "x" || m.To != (wire.Address{To: wire.ToSlot, Group: "a", Slot: 1}) {
			t.Errorf("%+v", m)
		}
		if len(l.e.sent) != 0 || l.e.bytes != 0 || l.e.files != 0 {
			t.Errorf("left: %d, %d bytes", len(l.e.sent), l.e.bytes)
		}
	})
}

// TestFiles: closed once the message was handled, or nobody waits; else the caller's.
func TestFiles(t *testing.T) {
	for name, c := range map[string]struct {
		why  wire.Why
		left bool
		open bool
	}{
		"handled":              {"", false, false},
		"not handled":          {wire.WhyGone, false, true},
		"handled, nobody sees": {"", true, false},
		"not, nobody sees":     {wire.WhyGone, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			l := newFake()
			f := pipes(t, 1)
			s, err := l.e.Post(t.Context(), Parent(), "x", nil, f...)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(l.files[0], f) || l.sent[0].Files != 2 {
				t.Errorf("%v", l.files)
			}
			if c.left {
				ctx, cancel := context.WithCancelCause(t.Context())
				cancel(errors.New("enough"))
				if _, err := s.Wait(ctx); err == nil || !strings.Contains(err.Error(), "enough") {
					t.Error(err)
				}
			}
			if !isOpen(f[0]) {
				t.Error("closed before the result")
			}
			l.e.Result(wire.Result{N: 1, Why: c.why})
			<-s.Done()
			ended, cancel := context.WithCancel(t.Context())
			cancel()
			for range 20 { // what is known is told, whatever ctx says
				if _, err := s.Wait(ended); (err != nil) != (c.why != "") || errors.Is(err, context.Canceled) {
					t.Fatal(err)
				}
			}
			if isOpen(f[0]) != c.open || isOpen(f[1]) != c.open {
				t.Errorf("open: %v", isOpen(f[0]))
			}
		})
	}
	wantFDs(t)
	l := newFake()
	files := pipes(t, 2)
	l.receive(1, 1, "none", files[:2]...) // nobody handles it
	l.e.wg.Wait()
	l.e.Stop()
	l.receive(2, 1, "none", files[2:]...)
	for _, f := range files {
		if isOpen(f) {
			t.Error("a file that nobody got is open")
		}
	}
}

// TestWindow: whoever sends more than Window messages, or WindowBytes, or files, waits;
// those who wait go in order.
func TestWindow(t *testing.T) {
	for name, c := range map[string]struct {
		fit   int
		data  any
		files int
	}{
		"messages": {Window, nil, 0},
		"bytes":    {WindowBytes / (MaxData / 2), strings.Repeat("x", MaxData/2-2), 0},
		"files":    {Window / MaxFiles, nil, MaxFiles},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newFake()
				files := slices.Repeat(pipes(t, 1)[:1], c.files)
				post := func(ctx context.Context, typ string) error {
					_, err := l.e.Post(ctx, Any("a"), typ, c.data, files...)
					return err
				}
				for range c.fit {
					if err := post(t.Context(), "fits"); err != nil {
						t.Fatal(err)
					}
				}
				ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("enough"))
				defer cancel()
				if err := post(ctx, "no"); !errors.Is(err, ErrWindow) || !strings.Contains(err.Error(), "enough") {
					t.Fatal(err)
				}
				errs := make(chan error, 3)
				for i := range 3 {
					go func() { errs <- post(t.Context(), fmt.Sprint(i)) }()
					synctest.Wait()
				}
				ended, cancel := context.WithCancel(t.Context())
				cancel()
				if err := post(ended, "no"); !errors.Is(err, ErrWindow) || !errors.Is(err, context.Canceled) {
					t.Error(err)
				}
				for i := range 3 {
					if n := l.count(); n != c.fit+i {
						t.Fatalf("%d are under way, and %d results known", n, i)
					}
					l.e.Result(wire.Result{N: i + 1, Why: wire.WhyGone})
					synctest.Wait()
					if err := <-errs; err != nil {
						t.Error(err)
					}
					if m := l.sent[c.fit+i]; m.Type != fmt.Sprint(i) {
						t.Errorf("%q was first", m.Type)
					}
				}
				go func() { errs <- post(t.Context(), "last") }()
				synctest.Wait()
				l.e.Close(errors.New("why"))
				if err := <-errs; !errors.Is(err, ErrClosed) || !strings.Contains(err.Error(), "why") {
					t.Error(err)
				}
			})
		})
	}
}

// TestOneAlwaysFits: also if it is larger than all that may be.
func TestOneAlwaysFits(t *testing.T) {
	t.Parallel()
	l := newFake()
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	for range 50 { // also each time with a ctx that has ended: there is room
		if _, err := l.e.Post(ended, Parent(), "x", nil); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.e.Send(ended, Parent(), "x", nil); !errors.Is(err, context.Canceled) || errors.Is(err, ErrWindow) {
		t.Error(err)
	}
	l.e.Close(nil)
}

// TestConcurrent: many senders and receivers, for the race detector.
func TestConcurrent(t *testing.T) {
	t.Parallel()
	e := NewAlone("a")
	e.Handle("x", func(_ context.Context, m *Message) (any, error) { return m.Data, nil })
	done := make(chan error)
	for i := range 200 {
		go func() {
			var answer int
			err := e.Request(context.Background(), Any("a"), "x", i, &answer)
			if err == nil && answer != i {
				err = fmt.Errorf("%d for %d", answer, i)
			}
			done <- err
		}()
	}
	for range 200 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	e.Close(nil)
	e.wg.Wait()
}
