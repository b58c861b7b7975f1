//go:build linux || darwin || freebsd

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// box is an outbox, and the other end of its channel.
type box struct {
	*Outbox
	c    *Conn
	peer *Conn
	room chan struct{}
	wg   sync.WaitGroup
}

func newBox(t testing.TB) *box {
	t.Helper()
	a, b := newPair(t)
	return boxOn(t, a, b, nil)
}

func boxOn(t testing.TB, a, b *Conn, rest []byte) *box {
	t.Helper()
	x := &box{c: a, peer: b, room: make(chan struct{}, 1000)}
	x.Outbox = NewOutbox(a, rest, x.wg.Go, func() { x.room <- struct{}{} })
	t.Cleanup(func() { a.Close(); x.wg.Wait() })
	return x
}

// fill puts long lines until there is no room, and returns how many. The last is half
// out, unless the socket took it just so.
func (x *box) fill(t testing.TB) int {
	t.Helper()
	for n := 0; ; n++ {
		err := x.Put(long(n))
		if errors.Is(err, ErrFull) {
			return n
		}
		noErr(t, err)
	}
}

// long is a line that the socket does not take more than a few times.
func long(n int) msg { return msg{N: n, Pad: strings.Repeat("x", 100_000)} }

func text(t testing.TB, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	noErr(t, err)
	return string(b)
}

func (x *box) wantLines(t testing.TB, from, to int) {
	t.Helper()
	for n := from; n < to; n++ {
		wantLine(t, x.peer, text(t, long(n)))
	}
}

// isHalf reports whether a line is half out.
func (x *box) isHalf() bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	return len(x.rest) > 0
}

// TestOutboxFull: what does not fit stays with the caller, who is told once when there is
// room; the end of a line that is half out follows by itself.
func TestOutboxFull(t *testing.T) {
	t.Parallel()
	x := newBox(t)
	n := x.fill(t)
	if !x.isHalf() {
		t.Fatal("no line is half out")
	}
	wantErr(t, x.c.lineOut(), ErrFull)
	for range 3 {
		wantErr(t, x.Put(long(n)), ErrFull)
	}
	wantErr(t, x.c.TrySend("between"), ErrFull)
	x.wantLines(t, 0, n)
	<-x.room
	x.wg.Wait()
	if len(x.room) != 0 {
		t.Error("told twice")
	}
	more := n
	for ; !x.isHalf(); more++ {
		noErr(t, x.Put(long(more)))
	}
	x.wantLines(t, n, more)
	x.wg.Wait()
	if len(x.room) != 0 {
		t.Error("told without having been refused")
	}
	noErr(t, x.c.TrySend("after"))
	wantLine(t, x.peer, `"after"`)
}

// TestOutboxNothingOut: also when nothing at all was written, it is told when there is
// room.
func TestOutboxNothingOut(t *testing.T) {
	t.Parallel()
	x := newBox(t)
	n := fillUp(t, x.c)
	_, w := pipes(t, 1)
	wantErr(t, x.Put("with a file", w...), ErrFull)
	if x.isHalf() {
		t.Error("something was written")
	}
	for i := range n {
		wantLine(t, x.peer, fmt.Sprintf(`{"from":0,"n":%d}`, i))
	}
	<-x.room
	if n := x.peer.Pending(); n != 0 {
		t.Errorf("%d descriptors came without their line", n)
	}
	noErr(t, x.Put("now", w...))
	wantLine(t, x.peer, `"now"`)
	if n := x.peer.Pending(); n != 1 {
		t.Errorf("%d descriptors", n)
	}
}

// TestOutboxUrge: commands go before what is put later, and wait for the end of a line.
func TestOutboxUrge(t *testing.T) {
	t.Parallel()
	x := newBox(t)
	n := x.fill(t)
	for i := range maxUrgent {
		noErr(t, x.Urge(Order{fmt.Sprint(i)}))
	}
	wantErr(t, x.Urge(Order{"too many"}), ErrFull)
	wantErr(t, x.Put(long(n)), ErrFull)
	wantErr(t, x.Urge(strings.Repeat("x", MaxLine)), ErrLineTooLong)
	x.wantLines(t, 0, n)
	for i := range maxUrgent {
		wantLine(t, x.peer, fmt.Sprintf(`{"cmd":"%d"}`, i))
	}
	<-x.room
	x.wg.Wait()
	noErr(t, x.Urge(Order{"last"}))
	wantLine(t, x.peer, `{"cmd":"last"}`)

	// Only an urge was refused room: nobody is to be told.
	n = fillUp(t, x.c)
	noErr(t, x.Urge(Order{"waits"}))
	for range n {
		_, err := x.peer.Read()
		noErr(t, err)
	}
	wantLine(t, x.peer, `{"cmd":"waits"}`)
	x.wg.Wait()
	if len(x.room) != 0 {
		t.Error("told without having been refused")
	}
	n = fillUp(t, x.c)
	noErr(t, x.Urge(Order{"waits"}))
	_, w := pipes(t, 1)
	wantErr(t, x.Urge(Order{"with a file"}, w...), ErrFull)
	for range n {
		_, err := x.peer.Read()
		noErr(t, err)
	}
	wantLine(t, x.peer, `{"cmd":"waits"}`)
}

// TestOutboxUrgeAtTheEnd: commands that come just when there is room again are written,
// and in order.
func TestOutboxUrgeAtTheEnd(t *testing.T) {
	t.Parallel()
	x := newBox(t)
	const senders, each = 4, 100
	var wg sync.WaitGroup
	for from := range senders {
		wg.Go(func() {
			for n := range each {
				m := msg{From: from, N: n, Pad: strings.Repeat("x", 20_000)}
				err := x.Urge(m)
				for ; errors.Is(err, ErrFull); err = x.Urge(m) {
					runtime.Gosched()
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	var next [senders]int
	for range senders * each {
		line, err := x.peer.Read()
		noErr(t, err)
		var m msg
		noErr(t, json.Unmarshal(line, &m))
		if m.N != next[m.From] {
			t.Fatalf("number %d of %d, want %d", m.N, m.From, next[m.From])
		}
		next[m.From]++
	}
	wg.Wait()

	// The moment itself: there is room, and who waited for it has not said so yet.
	x.wg.Wait()
	x.mu.Lock()
	x.waiting = make(chan struct{})
	x.mu.Unlock()
	noErr(t, x.Urge(Order{"urgent"}))
	wantErr(t, x.Put(Order{"later"}), ErrFull)
	x.waited(nil)
	<-x.room
	noErr(t, x.Put(Order{"later"}))
	wantLine(t, x.peer, `{"cmd":"urgent"}`)
	wantLine(t, x.peer, `{"cmd":"later"}`)
}

// TestOutboxFiles go with the first byte of their line, also if it is half out.
func TestOutboxFiles(t *testing.T) {
	wantFDs(t)
	x := newBox(t)
	r, w := pipes(t, 3)
	n := 0
	for ; ; n++ {
		err := x.Put(long(n), w...)
		if errors.Is(err, ErrFull) {
			break
		}
		noErr(t, err)
	}
	for i := range n {
		wantLine(t, x.peer, text(t, long(i)))
		wantSameFiles(t, must(x.peer.TakeFiles(3))(t), r)
	}
	if n := x.peer.Pending(); n != 0 {
		t.Errorf("%d descriptors too many", n)
	}
	wantErr(t, x.Put(1, make([]*os.File, MaxFiles+1)...), ErrTooManyFiles)
	closed := must(os.Open(os.DevNull))(t)
	noErr(t, closed.Close())
	if err := x.Put(2, closed); err == nil || Gone(err) && !errors.Is(err, os.ErrClosed) {
		t.Error(err)
	}
	noErr(t, x.Put(3))
	wantLine(t, x.peer, "3")
}

// TestOutboxHandOver: outboxes of several processes write one after the other, each
// stopped wherever it is; every byte is there once.
func TestOutboxHandOver(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	_, w := pipes(t, 1)
	const total = 60
	lines := make(chan error, 1)
	go func() {
		for n := range total {
			line, err := b.Read()
			if err == nil && string(line) != text(t, long(n)) {
				err = fmt.Errorf("line %d is %.60s", n, line)
			}
			var files []*os.File
			if err == nil {
				files, err = b.TakeFiles(n % 2)
			}
			for _, f := range files {
				f.Close()
			}
			if err != nil {
				lines <- err
				b.Close()
				return
			}
		}
		lines <- nil
	}()
	halves := 0
	var rest []byte
	for n := 0; n < total; {
		next := must(NewConn(dup(t, a)))(t) // another process's
		x := &box{c: next, room: make(chan struct{}, 1000)}
		x.Outbox = NewOutbox(next, rest, x.wg.Go, func() { x.room <- struct{}{} })
		for range 3 {
			if n == total {
				break
			}
			if err := x.Put(long(n), w[:n%2]...); errors.Is(err, ErrFull) {
				break
			} else if err != nil {
				t.Fatal(err)
			}
			n++
		}
		rest = x.Halt()
		x.wg.Wait()
		wantErr(t, x.Put(1), ErrHalted)
		wantErr(t, x.Urge(1), ErrHalted)
		if again := x.Halt(); again != nil {
			t.Errorf("%d bytes again", len(again))
		}
		if len(rest) > 0 {
			halves++
		}
		if n%7 == 0 { // it goes on itself, after all
			x.Unhalt(rest)
			rest = x.Halt()
			x.wg.Wait()
		}
		if _, err := next.Halt(); err != nil {
			t.Errorf("the channel can't be handed on: %v", err)
		}
		noErr(t, next.Close())
	}
	last := boxOn(t, a, b, rest)
	noErr(t, <-lines)
	last.wg.Wait()
	if halves == 0 {
		t.Error("no line was half out")
	}
}

// TestOutboxHalt: commands that wait are dropped, also if one was to be the next; what is
// half out goes on where it was.
func TestOutboxHalt(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	x := boxOn(t, a, b, nil)
	n := fillUp(t, a)
	noErr(t, x.Urge(Order{"dropped"}))
	wantErr(t, x.Put("refused"), ErrFull)
	if rest := x.Halt(); rest != nil {
		t.Errorf("%q is half out", rest)
	}
	x.Unhalt(nil)
	for i := range n {
		wantLine(t, b, fmt.Sprintf(`{"from":0,"n":%d}`, i))
	}
	noErr(t, x.Put("first"))
	wantLine(t, b, `"first"`)
	if len(x.room) != 0 {
		t.Error("told in spite of Halt")
	}

	n = x.fill(t)
	rest := x.Halt()
	if len(rest) == 0 {
		t.Fatal("nothing is half out")
	}
	noErr(t, x.c.lineOut())
	x.Unhalt(rest)
	wantErr(t, a.TrySend("between"), ErrFull)
	wantErr(t, x.Put(long(n)), ErrFull)
	x.wantLines(t, 0, n)
	<-x.room

	// Another one that begins while there is no room.
	n = x.fill(t)
	rest = x.Halt()
	y := boxOn(t, a, b, rest)
	wantErr(t, a.lineOut(), ErrFull)
	wantErr(t, a.TrySend("between"), ErrFull)
	noErr(t, y.Urge(Order{"urgent"}))
	y.wantLines(t, 0, n)
	wantLine(t, b, `{"cmd":"urgent"}`)
}

// TestOutboxPeerGone: at any moment.
func TestOutboxPeerGone(t *testing.T) {
	t.Parallel()
	x := newBox(t)
	x.fill(t)
	noErr(t, x.Urge(Order{"x"}))
	noErr(t, x.peer.Close())
	<-x.room
	x.wg.Wait()
	for _, err := range []error{x.Put(1), x.Urge(1)} {
		if !errors.Is(err, unix.EPIPE) || !Gone(err) {
			t.Error(err)
		}
	}
	x.Halt()

	x = newBox(t)
	noErr(t, x.peer.Close())
	if err := x.Put(1); !Gone(err) {
		t.Error(err)
	}

	// This end is closed.
	x = newBox(t)
	x.fill(t)
	noErr(t, x.c.Close())
	x.wg.Wait()
	for _, err := range []error{x.Put(1), x.Urge(1)} {
		if !errors.Is(err, os.ErrClosed) || !Gone(err) {
			t.Error(err)
		}
	}
	if len(x.room) != 0 || Gone(ErrFull) || Gone(nil) {
		t.Error("told of room in what is closed")
	}
	x.Halt()
	x.Unhalt(nil)
}

// TestOutboxConcurrent: lines of several callers arrive whole, in each one's order.
func TestOutboxConcurrent(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	const senders, each = 6, 40
	var cond sync.Cond
	cond.L = &sync.Mutex{}
	rooms := 0
	var wg sync.WaitGroup
	o := NewOutbox(a, nil, wg.Go, func() {
		cond.L.Lock()
		defer cond.L.Unlock()
		rooms++
		cond.Broadcast()
	})
	for from := range senders {
		wg.Go(func() {
			for n := range each {
				m := msg{From: from, N: n, Pad: strings.Repeat("x", (from*each+n)*7919%(64<<10))}
				for {
					cond.L.Lock()
					before := rooms
					cond.L.Unlock()
					put := o.Put
					if from == 0 {
						put = o.Urge
					}
					err := put(m)
					if err == nil {
						break
					}
					if !errors.Is(err, ErrFull) {
						t.Error(err)
						return
					}
					if from == 0 {
						continue // it was full of urgent ones
					}
					cond.L.Lock()
					for rooms == before {
						cond.Wait()
					}
					cond.L.Unlock()
				}
			}
		})
	}
	var next [senders]int
	for range senders * each {
		line, err := b.Read()
		noErr(t, err)
		var m msg
		noErr(t, json.Unmarshal(line, &m))
		if m.N != next[m.From] {
			t.Fatalf("number %d of %d, want %d", m.N, m.From, next[m.From])
		}
		next[m.From]++
	}
	wg.Wait()
	noErr(t, a.Close())
	if _, err := b.Read(); err != io.EOF {
		t.Error(err)
	}
}
