//go:build linux || darwin || freebsd

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// Lines of several senders, most of them longer than what the socket takes at
// once, arrive whole and in each sender's order; so do the quick ones between.
func TestConcurrentSenders(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	const senders, each = 8, 30
	var wg sync.WaitGroup
	for from := range senders {
		wg.Go(func() {
			for n := range each {
				pad := strings.Repeat("x", (from*each+n)*7919%(64<<10))
				if err := a.Send(msg{From: from, N: n, Pad: pad}); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	tried := make(chan int)
	stop := make(chan struct{})
	go func() {
		n := 0
		defer func() { tried <- n }()
		for {
			select {
			case <-stop:
				return
			default:
			}
			switch err := a.TrySend(msg{From: senders, N: n}); {
			case err == nil:
				n++
			case !errors.Is(err, ErrFull):
				t.Error(err)
				return
			}
		}
	}()
	got := make(chan [senders + 1]int)
	go func() {
		var next [senders + 1]int
		defer func() { got <- next }()
		for {
			line, err := b.Read()
			if err != nil {
				return
			}
			var m msg
			if err := json.Unmarshal(line, &m); err != nil || m.N != next[m.From] {
				t.Errorf("%.60s…: %v; want number %d", line, err, next[m.From])
				b.Close()
				return
			}
			next[m.From]++
		}
	}()
	wg.Wait()
	close(stop)
	n := <-tried
	a.Close()
	next := <-got
	for from, have := range next {
		if want := map[bool]int{true: each, false: n}[from < senders]; have != want {
			t.Errorf("%d lines of sender %d, want %d", have, from, want)
		}
	}
}

func TestTrySend(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	wantErr(t, a.TrySend(strings.Repeat("x", MaxTryLine-1)), ErrLineTooLong)
	wantErr(t, a.TrySend(1, make([]*os.File, MaxFiles+1)...), ErrTooManyFiles)

	// The longest lines, until the socket is full: none is cut.
	long := strings.Repeat("x", MaxTryLine-2)
	_, w := pipes(t, 1)
	n := 0
	for ; ; n++ {
		if err := a.TrySend(long, w...); err != nil {
			wantErr(t, err, ErrFull)
			break
		}
	}
	for range n {
		wantLine(t, b, `"`+long+`"`)
	}
	if got := b.Pending(); n < 10 || got != n {
		t.Fatalf("%d lines with %d descriptors; one that was refused must send none", n, got)
	}
	// Its reader reads again, and there is room.
	noErr(t, a.TrySend("ok"))
	wantLine(t, b, `"ok"`)
}

// Also on a socket whose buffer somebody has made small, no line is cut.
func TestTrySendSmallBuffer(t *testing.T) {
	t.Parallel()
	fa, fb, err := Pair()
	noErr(t, err)
	control(t, fa, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 1) })
	a, b := must(NewConn(fa))(t), must(NewConn(fb))(t)
	defer a.Close()
	defer b.Close()
	long := strings.Repeat("x", MaxTryLine-2)
	var sent []string
	for i := range 200 { // short lines between, so that the buffer fills in all ways
		for _, text := range []string{"short", long}[i%3/2:] {
			err := a.TrySend(text)
			if err == nil {
				sent = append(sent, `"`+text+`"`)
				continue
			}
			wantErr(t, err, ErrFull)
			wantLine(t, b, sent[0])
			sent = sent[1:]
		}
	}
	for _, line := range sent {
		wantLine(t, b, line)
	}
}

// A line of Send that does not fit waits for the reader; TrySend neither waits for
// it nor gets into its middle, and Halt refuses to hand half a line on.
func TestTrySendWhileSendWaits(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	long := strings.Repeat("x", MaxLine-2)
	done := make(chan error)
	go func() { done <- a.Send(long) }()
	// The first bytes are here, so the Send is in the middle of its line.
	noErr(t, b.fill(MaxLine))
	wantErr(t, a.TrySend("between"), ErrFull)
	_, err := a.Halt()
	wantErr(t, err, ErrFull)
	wantLine(t, b, `"`+long+`"`)
	noErr(t, <-done)
	noErr(t, a.TrySend("after"))
	wantLine(t, b, `"after"`)
	a.Unhalt(must(a.Halt())(t))
}

// A Send that ends in the middle of its line lets no other line follow; one that
// ends before its first byte does no harm.
func TestCutLine(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	n := fillUp(t, a)
	_, w := pipes(t, 1)
	noErr(t, a.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	wantErr(t, a.Send("nothing of it is written", w...), os.ErrDeadlineExceeded)
	noErr(t, a.SetWriteDeadline(time.Time{}))
	for i := range n {
		wantLine(t, b, fmt.Sprintf(`{"from":0,"n":%d}`, i))
	}
	noErr(t, a.Send("whole"))
	wantLine(t, b, `"whole"`)
	if n := b.Pending(); n != 0 {
		t.Fatalf("%d descriptors came without their line", n)
	}

	done := make(chan error)
	go func() { done <- a.Send(strings.Repeat("x", MaxLine-2)) }()
	noErr(t, b.fill(MaxLine)) // its beginning has arrived
	noErr(t, a.SetWriteDeadline(longAgo))
	wantErr(t, <-done, os.ErrDeadlineExceeded)
	noErr(t, a.SetWriteDeadline(time.Time{}))
	for _, err := range []error{a.Send("after"), a.TrySend("after")} {
		wantErr(t, err, ErrBroken)
		wantErr(t, err, os.ErrDeadlineExceeded)
	}
	_, err := a.Halt()
	wantErr(t, err, ErrBroken)
}

// The peer dies while a Send waits.
func TestPeerDiesDuringSend(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	done := make(chan error)
	go func() { done <- a.Send(strings.Repeat("x", MaxLine-2)) }()
	noErr(t, b.fill(MaxLine))
	noErr(t, b.Close())
	wantErr(t, <-done, unix.EPIPE)
	wantErr(t, a.Send(1), unix.EPIPE)
}

// Descriptors arrive with the first byte of their line, once, however many writes
// the line takes.
func TestFilesWithPartialWrites(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	r, w := pipes(t, MaxFiles)
	control(t, a.f, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10) })
	long := strings.Repeat("x", MaxLine-2)
	done := make(chan error)
	go func() {
		var errs []error
		for i := range 3 {
			errs = append(errs, a.Send(long, w[:MaxFiles-i]...), a.Send(i, w[i]))
		}
		done <- errors.Join(errs...)
	}()
	for i := range 3 {
		wantLine(t, b, `"`+long+`"`)
		files := must(b.TakeFiles(MaxFiles - i))(t)
		for _, f := range files {
			if !flag(t, f, unix.F_GETFD, unix.FD_CLOEXEC) {
				t.Fatal("a received descriptor is not close-on-exec")
			}
		}
		wantSameFiles(t, files, r[:MaxFiles-i])
		wantLine(t, b, fmt.Sprint(i))
		wantSameFiles(t, must(b.TakeFiles(1))(t), r[i:i+1])
		if n := b.Pending(); n != 0 {
			t.Fatalf("%d descriptors too many", n)
		}
	}
	noErr(t, <-done)
}

func TestTakeFiles(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	r, w := pipes(t, 3)
	noErr(t, a.Send(1, w[0], w[1]))
	noErr(t, a.Send(2))
	noErr(t, a.Send(3, w[2]))
	for _, line := range []string{"1", "2", "3"} {
		wantLine(t, b, line)
	}
	_, err := b.TakeFiles(4)
	wantErr(t, err, ErrMissingFiles)
	_, err = b.TakeFiles(-1)
	if err == nil {
		t.Error("took -1 descriptors")
	}
	if none := must(b.TakeFiles(0))(t); len(none) != 0 || b.Pending() != 3 {
		t.Errorf("%d taken, %d pending", len(none), b.Pending())
	}
	wantSameFiles(t, must(b.TakeFiles(1))(t), r[:1])
	wantSameFiles(t, must(b.TakeFiles(2))(t), r[1:])

	// What cannot be sent is not begun.
	closed := must(os.Open(os.DevNull))(t)
	noErr(t, closed.Close())
	wantErr(t, a.Send(4, make([]*os.File, MaxFiles+1)...), ErrTooManyFiles)
	if a.Send(4, closed) == nil || a.Send(4, w[0], nil) == nil {
		t.Error("a closed file was sent")
	}
	noErr(t, a.Send(5))
	wantLine(t, b, "5")
	if n := b.Pending(); n != 0 {
		t.Errorf("%d pending", n)
	}
}

// A peer that sends descriptors and nothing that a reader would take them for.
func TestFlood(t *testing.T) {
	for _, line := range []string{"\n", "x", "1\n"} {
		t.Run(fmt.Sprintf("%q", line), func(t *testing.T) {
			wantFDs(t)
			c, peer := newRaw(t)
			_, w := pipes(t, 1)
			oob := make([]int, 250)
			control(t, w[0], func(fd int) error {
				for i := range oob {
					oob[i] = fd
				}
				return nil
			})
			control(t, peer, func(fd int) error {
				for range 8 { // 2000 descriptors
					if err := unix.Sendmsg(fd, []byte(line), unix.UnixRights(oob...), nil, 0); err != nil {
						return err
					}
				}
				return nil
			})
			_, err := readAll(c)
			wantErr(t, err, ErrTooManyFiles)
			if n := c.Pending(); n != 1000 {
				t.Errorf("%d pending, want the 1000 under the cap", n)
			}
			_, err = c.Read()
			wantErr(t, err, ErrTooManyFiles)
			_, err = c.Halt()
			wantErr(t, err, ErrTooManyFiles)
		})
	}
}
