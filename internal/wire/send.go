//go:build linux || darwin || freebsd

package wire

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// Send writes v as one line of JSON, and files with it, and waits until the
// socket has taken all of it. It is safe for concurrent use: lines never
// interleave. The caller goes on owning the files, may close them afterwards,
// and their O_NONBLOCK is left alone.
//
// Before anything is written it fails on what json.Marshal refuses, on a line
// over the cap (ErrLineTooLong) and on more than MaxFiles files
// (ErrTooManyFiles). A peer that has gone is syscall.EPIPE. Under Linux
// syscall.ETOOMANYREFS means that this user has more descriptors in flight than
// RLIMIT_NOFILE allows; nothing was written then, and a retry may succeed.
func (c *Conn) Send(v any, files ...*os.File) error {
	line, err := encode(v, int(c.maxLine.Load()), files)
	if err != nil {
		return err
	}
	c.turn.Lock()
	defer c.turn.Unlock()
	rest := line
	var failed error
	err = c.raw.Write(func(fd uintptr) bool {
		c.wmu.Lock()
		defer c.wmu.Unlock()
		if failed = c.werr; failed != nil {
			return true
		}
		defer func() { c.midLine = 0 < len(rest) && len(rest) < len(line) }()
		for len(rest) > 0 {
			n, err := sendmsg(int(fd), rest, files)
			if errors.Is(err, unix.EAGAIN) {
				return false
			}
			if err != nil {
				failed = err
				return true
			}
			rest, files = rest[n:], nil // they went with the first byte
		}
		return true
	})
	if err == nil {
		err = failed
	}
	return c.sent(err, len(line)-len(rest), len(line))
}

// TrySend is Send without waiting: it writes the whole line, or nothing and
// returns ErrFull when the socket has no room for it or a Send waits with its
// line half written. The line is at most MaxTryLine bytes long
// (ErrLineTooLong). Deadlines do not concern it.
func (c *Conn) TrySend(v any, files ...*os.File) error {
	line, err := encode(v, min(MaxTryLine, int(c.maxLine.Load())), files)
	if err != nil {
		return err
	}
	n := 0
	var failed error
	err = c.raw.Control(func(fd uintptr) {
		c.wmu.Lock()
		defer c.wmu.Unlock()
		switch {
		case c.werr != nil:
			failed = c.werr
		case c.midLine:
			failed = ErrFull
		default:
			n, failed = sendmsg(int(fd), line, files)
			if errors.Is(failed, unix.EAGAIN) {
				failed = ErrFull
			}
			if failed == nil && n < len(line) {
				// tune prevents it; no other line may follow.
				failed = fmt.Errorf("the socket took %d of %d bytes", n, len(line))
				c.midLine = true
			}
		}
	})
	if err == nil {
		err = failed
	}
	return c.sent(err, n, len(line))
}

// sent returns the error for the caller of a write that took n of size bytes, and
// lets no line follow one that was cut short.
func (c *Conn) sent(err error, n, size int) error {
	if err == nil {
		return nil
	}
	c.mu.Lock()
	if c.closed {
		err = os.ErrClosed
	}
	c.mu.Unlock()
	if 0 < n && n < size {
		c.wmu.Lock()
		c.werr = fmt.Errorf("%w (%w)", ErrBroken, err)
		c.midLine = false
		c.wmu.Unlock()
	}
	return fmt.Errorf("wire: send: %w", err)
}

// encode returns v as a line, its newline included.
func encode(v any, limit int, files []*os.File) ([]byte, error) {
	if len(files) > MaxFiles {
		return nil, fmt.Errorf("wire: send: %w: %d, the cap is %d a line", ErrTooManyFiles, len(files), MaxFiles)
	}
	// Marshal's output holds no newline: it compacts what a Marshaler
	// returns, too.
	line, err := json.Marshal(v)
	if err != nil {
		return nil, fmt.Errorf("wire: send: %w", err)
	}
	if len(line) > limit {
		return nil, &LineTooLongError{Cap: limit, Size: len(line)}
	}
	return append(line, '\n'), nil
}

// sendmsg writes as much of p as the socket takes without waiting, with files on
// the first byte. It refers to the files only while it runs, so that a Send that
// waits does not keep anybody from closing them.
func sendmsg(fd int, p []byte, files []*os.File) (n int, err error) {
	ferr := withFDs(files, make([]int, 0, len(files)), func(fds []int) {
		var oob []byte
		if len(fds) > 0 {
			oob = unix.UnixRights(fds...)
		}
		for {
			n, err = unix.SendmsgN(fd, p, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				break
			}
		}
	})
	switch {
	case ferr != nil:
		return 0, fmt.Errorf("file descriptor to be sent: %w", ferr)
	case err == unix.ECONNRESET:
		// The peer went away with lines unread, and the socket says so
		// once before it says EPIPE.
		return 0, os.NewSyscallError("sendmsg", unix.EPIPE)
	case err != nil:
		return 0, os.NewSyscallError("sendmsg", err)
	}
	return n, nil
}

// withFDs calls fn with the descriptors of all files, none of which can be closed
// meanwhile, and without os.File.Fd, which can clear O_NONBLOCK.
func withFDs(files []*os.File, fds []int, fn func([]int)) error {
	if len(files) == 0 {
		fn(fds)
		return nil
	}
	rc, err := files[0].SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := rc.Control(func(fd uintptr) {
		inner = withFDs(files[1:], append(fds, int(fd)), fn)
	}); err != nil {
		return fmt.Errorf("%s: %w", files[0].Name(), err)
	}
	return inner
}
