//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"testing"
	"time"
)

// Halt in the middle of a line, with descriptors; another reader goes on with its
// own descriptor of the same socket.
func TestHaltMidLineThenResume(t *testing.T) {
	wantFDs(t)
	old, peer := newRaw(t)
	r, w := pipes(t, 4)
	helper := must(NewConn(peer))(t)
	defer helper.Close()

	noErr(t, helper.Send("one", w[:2]...))
	// A second line, a third, and half of a fourth with a descriptor on it.
	control(t, helper.f, func(fd int) error {
		if _, err := sendmsg(fd, []byte("\"two\"\n\"three\"\n"), nil); err != nil {
			return err
		}
		_, err := sendmsg(fd, []byte(`"fo`), w[2:3])
		return err
	})
	wantLine(t, old, `"one"`)
	wantSameFiles(t, must(old.TakeFiles(1))(t), r[:1])
	wantLine(t, old, `"two"`)

	next := dup(t, old)
	res, err := old.Halt()
	noErr(t, err)
	_, err = old.Read()
	wantErr(t, err, ErrHalted)
	_, err = old.Halt()
	wantErr(t, err, ErrHalted)
	if string(res.Bytes) != "\"three\"\n\"fo" && string(res.Bytes) != "\"three\"\n" {
		t.Fatalf("residue is %q", res.Bytes)
	}
	c := must(Resume(next, res))(t)
	defer c.Close()
	noErr(t, old.Close()) // does not end the connection

	control(t, helper.f, func(fd int) error {
		_, err := sendmsg(fd, []byte("ur\"\n"), nil)
		return err
	})
	noErr(t, helper.Send("five", w[3]))
	for _, want := range []string{"three", "four", "five"} {
		wantLine(t, c, `"`+want+`"`)
	}
	wantSameFiles(t, must(c.TakeFiles(3))(t), r[1:])
	noErr(t, c.Send("back"))
	wantLine(t, helper, `"back"`)
	if !nonblocking(t, c.f) || !nonblocking(t, helper.f) {
		t.Error("O_NONBLOCK was cleared")
	}
}

// A waiting Read is stopped, the deadline that the user set is kept for later, and
// nothing that came meanwhile is lost.
func TestHaltStopsReadAndUnhalt(t *testing.T) {
	t.Parallel()
	c, peer := newRaw(t)
	write(t, peer, "1\n2")
	wantLine(t, c, "1")
	for range 50 {
		done := make(chan error)
		go func() { _, err := c.Read(); done <- err }()
		r := must(c.Halt())(t)
		wantErr(t, <-done, ErrHalted)
		if string(r.Bytes) != "2" {
			t.Fatalf("residue is %q", r.Bytes)
		}
		c.Unhalt(r)
	}
	noErr(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err := c.Read()
	wantErr(t, err, os.ErrDeadlineExceeded)

	r := must(c.Halt())(t)
	noErr(t, c.SetReadDeadline(time.Now().Add(-time.Second)))
	_, err = c.Read()
	wantErr(t, err, ErrHalted)
	write(t, peer, "3\n")
	c.Unhalt(r)
	_, err = c.Read()
	wantErr(t, err, os.ErrDeadlineExceeded)
	noErr(t, c.SetReadDeadline(time.Time{}))
	wantLine(t, c, "23")

	// The end of the stream does not keep a connection from being handed on.
	write(t, peer, "half")
	noErr(t, peer.Close())
	_, err = c.Read()
	wantErr(t, err, io.ErrUnexpectedEOF)
	r = must(c.Halt())(t)
	c.Unhalt(r)
	if _, err = c.Read(); err != io.ErrUnexpectedEOF || string(r.Bytes) != "half" {
		t.Errorf("residue %q, then %v", r.Bytes, err)
	}
}

// Halted and resumed again and again under load, by one reader after another: each
// line arrives once, with its descriptor.
func TestHaltUnderLoad(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	r, w := pipes(t, 2)
	const total = 2000
	go func() {
		for n := range total {
			if err := a.Send(msg{N: n}, w[n%2]); err != nil {
				t.Error(err)
				a.Close()
				return
			}
		}
	}()
	type result struct {
		read int
		err  error
	}
	for n, readers := 0, 0; n < total; readers++ {
		done := make(chan result)
		reached := make(chan struct{})
		go func() {
			var res result
			for n+res.read < total && res.read < 500 {
				line, err := b.Read()
				if err != nil {
					res.err = err
					break
				}
				if want := fmt.Sprintf(`{"from":0,"n":%d}`, n+res.read); string(line) != want {
					res.err = fmt.Errorf("line %s, want %s", line, want)
					break
				}
				if res.read++; res.read == 10 {
					close(reached)
				}
			}
			if res.read < 10 {
				close(reached)
			}
			done <- res
		}()
		<-reached
		next := dup(t, b)
		rest := must(b.Halt())(t)
		res := <-done
		if res.err != nil && !errors.Is(res.err, ErrHalted) {
			t.Fatal(res.err)
		}
		rest.Files = append([]*os.File{}, rest.Files...)
		if readers%2 == 0 {
			b.Unhalt(rest)
			next.Close()
		} else {
			noErr(t, b.Close())
			b = must(Resume(next, rest))(t)
			defer b.Close()
		}
		for range res.read {
			wantSameFiles(t, must(b.TakeFiles(1))(t), r[n%2:n%2+1])
			n++
		}
	}
}

func TestUnhaltOfOther(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	_, w := pipes(t, 3)
	noErr(t, a.Send(1, w...))
	wantLine(t, b, "1")
	r := must(b.Halt())(t)
	a.Unhalt(r) // not halted: closes what it was given
	if r.Files[0].Close() == nil {
		t.Error("not closed")
	}
	noErr(t, a.Send(2, w...))
	b.Unhalt(Residue{})
	wantLine(t, b, "2")
	r = must(b.Halt())(t)
	noErr(t, b.Close())
	b.Unhalt(r)
	if r.Files[0].Close() == nil {
		t.Error("not closed")
	}
}
