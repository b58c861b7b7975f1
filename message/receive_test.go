package message

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// TestStop: what has not begun is given back, in order, with its files closed; what has
// goes on; and with Unstop everything does.
func TestStop(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		hold := make(chan struct{})
		l.e.Handle("wait", func(context.Context, *Message) (any, error) { <-hold; return nil, nil })
		l.receive(1, 1, "wait")
		synctest.Wait()
		files := pipes(t, 2)
		l.receive(2, 1, "wait", files[0], files[1])
		l.receive(3, 1, "wait")
		l.e.Stop()
		l.receive(4, 2, "wait", files[2], files[3])
		l.want(t, "again 2", "again 3", "again 4")
		for _, f := range files {
			if isOpen(f) {
				t.Error("the file of what was given back is open")
			}
		}
		if got := l.e.Mail(); !slices.Equal(got.Have, []int{1}) {
			t.Errorf("%+v", got)
		}
		l.e.Unstop()
		l.receive(5, 1, "wait") // the one before still runs
		synctest.Wait()
		hold <- struct{}{}
		hold <- struct{}{}
		synctest.Wait()
		l.want(t, "done 1 ", "done 5 ")
		if l.e.Busy() != 0 || len(l.e.lanes) != 0 {
			t.Errorf("%d busy, %d lanes", l.e.Busy(), len(l.e.lanes))
		}

		// Before its goroutine has run, nothing has begun.
		l.e.Receive(wire.Message{N: 6, Type: "wait"}, nil)
		l.e.mu.Lock()
		begun := len(l.e.lanes[wire.Sender{}].queue) == 0
		l.e.mu.Unlock()
		l.e.Stop()
		if mail := l.e.Mail(); !begun && len(mail.Have) != 0 {
			t.Errorf("it has %v, which it has given back", mail.Have)
		}
		if begun {
			hold <- struct{}{}
		}
		synctest.Wait()
		l.e.Close(nil)
	})
}

// TestGivenBackUnbegun: as above, in the order in which it matters.
func TestGivenBackUnbegun(t *testing.T) {
	t.Parallel()
	l := newFake()
	l.e.mu.Lock() // its goroutine can't run
	la := &lane{queue: []received{{n: 1, m: Message{Type: "x"}}}}
	l.e.lanes[wire.Sender{}] = la
	l.e.begin(wire.Sender{}, la)
	l.e.mu.Unlock()
	l.e.Stop()
	if mail := l.e.Mail(); slices.Contains(l.heard(), "again 1") && len(mail.Have) != 0 {
		t.Errorf("%+v", mail)
	}
	l.e.wg.Wait()
	if l.e.Busy() != 0 {
		t.Error("busy")
	}
}

// TestMail: what a parent that may have missed something hears.
func TestMail(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		hold := make(chan struct{})
		l.e.Handle("wait", func(context.Context, *Message) (any, error) { <-hold; return nil, nil })
		for range 3 {
			if _, err := l.e.Post(t.Context(), Parent(), "x", nil); err != nil {
				t.Fatal(err)
			}
		}
		l.e.Result(wire.Result{N: 2})
		l.receive(9, 1, "wait")
		l.receive(7, 2, "wait")
		l.receive(8, 2, "wait")
		l.receive(5, 3, "none")
		synctest.Wait()
		got := l.e.Mail()
		if got.Cmd != wire.CmdMail || !slices.Equal(got.Sent, []int{1, 3}) || !slices.Equal(got.Have, []int{7, 8, 9}) ||
			!slices.Equal(got.Done, []int{5}) || got.Forgot != 0 {
			t.Errorf("%+v", got)
		}
		close(hold)
		synctest.Wait()
		for n := range remembered {
			l.receive(100+n, 3, "none")
			synctest.Wait()
		}
		if got := l.e.Mail(); len(got.Have) != 0 || len(got.Done) != remembered || got.Done[0] != 100 || got.Forgot != 9 {
			t.Errorf("%d, from %d on, and forgot %d", len(got.Done), got.Done[0], got.Forgot)
		}
		l.e.Close(nil)
	})
}

// TestClose: what is under way fails, files stay the caller's, handlers' contexts end,
// nothing begins any more.
func TestClose(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		l.e.Handle("wait", func(ctx context.Context, _ *Message) (any, error) { <-ctx.Done(); return nil, ctx.Err() })
		l.receive(1, 1, "wait")
		l.receive(2, 1, "wait")
		synctest.Wait()
		f := pipes(t, 1)[0]
		s, err := l.e.Post(t.Context(), Parent(), "x", nil, f)
		if err != nil {
			t.Fatal(err)
		}
		l.e.Close(errors.New("the parent is gone"))
		l.e.Close(errors.New("again"))
		for range 2 {
			if _, err := s.Wait(t.Context()); !errors.Is(err, ErrClosed) || err.Error() != "message: the endpoint has ended: the parent is gone" {
				t.Error(err)
			}
			_, err = l.e.Post(t.Context(), Parent(), "x", nil, f)
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
		if !isOpen(f) {
			t.Error("the file was closed")
		}
		if err := l.e.Quiet(t.Context()); err != nil {
			t.Error(err)
		}
		l.receive(3, 1, "wait")
		l.want(t, "again 2", "done 1 handler", "again 3")
		l.e.Result(wire.Result{N: 1}) // too late
	})
}

// TestQuiet waits for all handlers, or until its ctx ends.
func TestQuiet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		if err := l.e.Quiet(t.Context()); err != nil {
			t.Error(err)
		}
		l.e.Handle("wait", func(_ context.Context, m *Message) (any, error) {
			time.Sleep(time.Duration(m.From.Slot) * time.Minute)
			return nil, nil
		})
		for n := range 3 {
			l.receive(n+1, n+1, "wait")
		}
		ctx, cancel := context.WithTimeoutCause(t.Context(), 150*time.Second, errors.New("enough"))
		defer cancel()
		if err := l.e.Quiet(ctx); err == nil || err.Error() != "enough" {
			t.Error(err)
		}
		if err := l.e.Quiet(t.Context()); err != nil || l.e.Busy() != 0 {
			t.Error(err)
		}
		l.want(t, "done 1 ", "done 2 ", "done 3 ")
	})
}

// TestAlone: a process without a parent is all that there is.
func TestAlone(t *testing.T) {
	wantFDs(t)
	e := NewAlone("web")
	var from Sender
	e.Handle("x", func(_ context.Context, m *Message) (any, error) {
		from = m.From
		for _, f := range m.Files {
			if _, err := fmt.Fprint(f, "hi"); err != nil {
				t.Error(err)
			}
			f.Close()
		}
		var v string
		return len(m.Files), m.Decode(&v)
	})
	for _, to := range []Address{Slot("web", 1), Group("web"), Any("web"), All()} {
		if err := e.Send(t.Context(), to, "x", "data"); err != nil || from != (Sender{"web", 1, 1, 1}) || from.Address() != Slot("web", 1) {
			t.Errorf("to %v: %v; from %+v", to, err, from)
		}
	}
	for _, to := range []Address{Slot("web", 2), Slot("other", 1), Group("other"), Any("other"), Parent()} {
		if err := e.Send(t.Context(), to, "x", "data"); !errors.Is(err, ErrAddress) {
			t.Errorf("to %v: %v", to, err)
		}
	}
	if err := e.Send(t.Context(), Any("web"), "y", "data"); !errors.Is(err, ErrUnhandled) {
		t.Error(err)
	}
	if err := e.Send(t.Context(), Any("web"), "x", 1); !errors.Is(err, ErrHandler) {
		t.Error(err)
	}
	w := pipes(t, 1)[1]
	n := 0
	if err := e.Request(t.Context(), Any("web"), "x", "data", &n, w); err != nil || n != 1 || isOpen(w) {
		t.Errorf("%d, %v, open: %v", n, err, isOpen(w))
	}
	closed := pipes(t, 1)[0]
	closed.Close()
	if err := e.Send(t.Context(), Any("web"), "x", "data", closed); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	e.Stop()
	if err := e.Send(t.Context(), Any("web"), "x", "data"); !errors.Is(err, ErrGone) {
		t.Error(err)
	}
	if a := e.link.(*alone); len(a.sent) != 0 {
		t.Errorf("%d numbers are kept", len(a.sent))
	}
	e.Close(ErrAlone)
	if err := e.Send(t.Context(), Any("web"), "x", "data"); !errors.Is(err, ErrClosed) || !errors.Is(err, ErrAlone) {
		t.Error(err)
	}
	e.wg.Wait()
}

// TestText: addresses and senders for people.
func TestText(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]fmt.Stringer{
		"the parent": Parent(), "web/1": Slot("web", 1), "group web": Group("web"), "any of group web": Any("web"), "all": All(),
		"nobody": Address{}, "web/2": Sender{Group: "web", Slot: 2},
	} {
		if got := v.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := (Sender{}).String(); got != "the parent" {
		t.Error(got)
	}
}

// TestResultOut: a handler begins when the result of the one before can't be lost any
// more.
func TestResultOut(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newFake()
		l.out = make(chan struct{})
		begun := 0
		l.e.Handle("x", func(context.Context, *Message) (any, error) { begun++; return nil, nil })
		for n := range 2 {
			l.e.Receive(wire.Message{N: n + 1, Type: "x"}, nil)
		}
		synctest.Wait()
		if begun != 1 {
			t.Errorf("%d begun", begun)
		}
		if m := l.e.Mail(); !slices.Equal(m.Have, []int{2}) || !slices.Equal(m.Done, []int{1}) {
			t.Errorf("%+v", m)
		}
		close(l.out)
		synctest.Wait()
		if begun != 2 {
			t.Errorf("%d begun", begun)
		}
		l.e.Close(nil)
		l.e.Wait()
	})
}
