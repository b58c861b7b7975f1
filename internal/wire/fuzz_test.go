//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"os"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// FuzzRead sends arbitrary bytes in arbitrary pieces, some with a descriptor, to a
// reader that is replaced by another after some lines, and compares with
// reference.
func FuzzRead(f *testing.F) {
	f.Add([]byte("{\"cmd\":\"x\"}\n"), []byte{3, 1}, uint16(100), uint8(1))
	f.Add([]byte("\n\n1\n\n22\n333\n4444\nhalf"), []byte{1}, uint16(4), uint8(2))
	f.Add([]byte("1\n22\n333"), []byte{}, uint16(3), uint8(0))
	f.Add([]byte("\x00\xff\n\r\n"), []byte{2, 130, 1}, uint16(0), uint8(0))
	pr, pw, err := os.Pipe()
	if err != nil {
		f.Fatal(err)
	}
	defer pr.Close()
	defer pw.Close()
	f.Fuzz(func(t *testing.T, data, cuts []byte, limit uint16, haltAt uint8) {
		limit = max(limit, 1)
		want, wantEnd := reference(data, int(limit))
		c, peer := newRaw(t)
		c.SetMaxLine(int(limit))
		type result struct {
			files int
			err   error
		}
		done := make(chan result)
		go func() {
			var res result
			res.files, res.err = sendPieces(peer, data, cuts, pw)
			peer.Close()
			done <- res
		}()

		var got []string
		var end error
		halt := func() {
			next := dup(t, c)
			r, err := c.Halt()
			noErr(t, err)
			noErr(t, c.Close())
			c = must(Resume(next, r))(t)
			c.SetMaxLine(int(limit))
		}
		for end == nil {
			if len(got) == int(haltAt) {
				halt()
			}
			var line []byte
			if line, end = c.Read(); end == nil {
				got = append(got, string(line))
			}
		}
		if !slices.Equal(got, want) || !errors.Is(end, wantEnd) {
			t.Errorf("read %q, %v; want %q, %v", got, end, want, wantEnd)
		}
		if n := len(c.lines.buf); n > max(int(limit)+1, minBuffer) {
			t.Errorf("buffered %d bytes, the cap is %d", n, limit)
		}
		pending := c.Pending()
		noErr(t, c.Close()) // ends the sending, too
		res := <-done
		if !errors.Is(wantEnd, ErrLineTooLong) && (res.err != nil || res.files != pending) {
			t.Errorf("%d descriptors sent (%v), %d arrived", res.files, res.err, pending)
		}
	})
}

// sendPieces writes data in pieces of the lengths in cuts, over and over; one of
// 128 or more is 128 shorter and has a descriptor with it. It sends no more of
// these than a reader must hold.
func sendPieces(peer *os.File, data, cuts []byte, file *os.File) (files int, err error) {
	rc, err := peer.SyscallConn()
	if err != nil {
		return 0, err
	}
	for i := 0; len(data) > 0; i++ {
		n, with := len(data), []*os.File(nil)
		if len(cuts) > 0 {
			cut := cuts[i%len(cuts)]
			n = min(n, max(1, int(cut&127)))
			if cut >= 128 && files < MaxPending {
				with = []*os.File{file}
				files++
			}
		}
		var werr error
		err := rc.Write(func(fd uintptr) bool {
			var sent int
			sent, werr = sendmsg(int(fd), data[:n], with)
			if sent > 0 {
				data, n, with = data[sent:], n-sent, nil
			}
			return n == 0 || werr != nil && !errors.Is(werr, unix.EAGAIN)
		})
		if err == nil {
			err = werr
		}
		if err != nil {
			return files, err
		}
	}
	return files, nil
}
