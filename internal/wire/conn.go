//go:build linux || darwin || freebsd

package wire

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Pair returns the two ends of a new channel (socketpair(2), AF_UNIX and
// SOCK_STREAM), non-blocking, close-on-exec and in the runtime's poller. The
// caller owns both. To give one to a child, pass its descriptor on through
// SyscallConn; the flag O_NONBLOCK of these files survives Fd as well.
func Pair() (a, b *os.File, err error) {
	fds, err := socketpair()
	if err != nil {
		return nil, nil, fmt.Errorf("wire: %w", os.NewSyscallError("socketpair", err))
	}
	return os.NewFile(uintptr(fds[0]), "channel"), os.NewFile(uintptr(fds[1]), "channel"), nil
}

// Conn is one end of a channel.
//
// One goroutine reads: Read, and TakeFiles for what came with a line. Send,
// TrySend, Close, Halt and the deadlines may be called from any goroutine at any
// time. No call blocks a thread, whatever another process does to the flags of
// the socket.
type Conn struct {
	f       *os.File
	raw     syscall.RawConn
	maxLine atomic.Int64

	rmu   sync.Mutex // held by Read until it returns
	lines lines
	rerr  error // ErrLineTooLong, ErrTooManyFiles, ErrFilesLost: final
	in    arrival

	mu        sync.Mutex // held only for moments
	files     []*os.File // arrived, not taken
	arrived   int        // descriptors, in all
	closed    bool
	halted    bool
	rdeadline time.Time // what the user set; while halted another one is in force

	turn    sync.Mutex // held by Send until its line is out
	wmu     sync.Mutex // held for one non-blocking write
	midLine bool       // a Send waits for room with its line half written
	werr    error      // ErrBroken: final
}

// NewConn returns a Conn on f, which must be a connected unix stream socket;
// anything else is a *NotChannelError. It owns f from then on, also on error: f
// itself is closed, and the Conn uses a duplicate that is close-on-exec and
// non-blocking. O_NONBLOCK belongs to the socket, not to the descriptor: other
// processes that hold the same end get it too.
func NewConn(f *os.File) (*Conn, error) { return Resume(f, Residue{}) }

// Resume is NewConn for a connection that had another reader before: it delivers
// r first. It owns r.Files from then on, also on error.
func Resume(f *os.File, r Residue) (*Conn, error) {
	own, err := adopt(f)
	if err != nil {
		r.Close()
		return nil, err
	}
	raw, err := own.SyscallConn()
	if err != nil {
		own.Close()
		r.Close()
		return nil, fmt.Errorf("wire: %w", err)
	}
	c := &Conn{f: own, raw: raw, files: r.Files, arrived: len(r.Files)}
	c.maxLine.Store(MaxLine)
	c.lines.put(r.Bytes)
	c.in.oob = make([]byte, unix.CmsgSpace(4*recvFiles))
	c.in.try = c.in.recv
	return c, nil
}

// adopt closes f and returns a duplicate that is certain to be non-blocking and
// in the poller, which a file that somebody else opened need not be.
func adopt(f *os.File) (*os.File, error) {
	if f == nil {
		return nil, &NotChannelError{FD: -1, What: "nil"}
	}
	defer f.Close()
	rc, err := f.SyscallConn()
	if err != nil {
		return nil, fmt.Errorf("wire: %w", err)
	}
	own := -1
	cerr := rc.Control(func(fd uintptr) {
		if err = checkChannel(int(fd)); err != nil {
			return
		}
		if own, err = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3); err != nil {
			err = fmt.Errorf("wire: descriptor %d: %w", fd, os.NewSyscallError("fcntl", err))
		}
	})
	if cerr != nil {
		return nil, &NotChannelError{FD: -1, What: "closed"}
	}
	if err != nil {
		return nil, err
	}
	tune(own)
	if err := unix.SetNonblock(own, true); err != nil {
		unix.Close(own)
		return nil, fmt.Errorf("wire: %w", os.NewSyscallError("fcntl", err))
	}
	return os.NewFile(uintptr(own), "channel"), nil
}

// SetMaxLine sets the cap of a line in bytes, newline excluded, for reading and
// sending, from the next call on; below 1 it is MaxLine, which is the default.
func (c *Conn) SetMaxLine(n int) {
	if n < 1 {
		n = MaxLine
	}
	c.maxLine.Store(int64(n))
}

// Read waits for the next line and returns it without its newline. The slice is
// valid until the next Read. Empty lines are skipped.
//
// The end is io.EOF when the peer has closed its end or died, and
// io.ErrUnexpectedEOF when it did so in the middle of a line. ErrLineTooLong,
// ErrTooManyFiles and ErrFilesLost are final. After a deadline
// (os.ErrDeadlineExceeded) and after ErrHalted, reading can go on and nothing
// is lost.
func (c *Conn) Read() ([]byte, error) {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	for {
		if err := c.stopped(); err != nil {
			return nil, err
		}
		if c.rerr != nil {
			return nil, c.rerr
		}
		limit := int(c.maxLine.Load())
		line, err := c.lines.next(limit)
		if err != nil {
			c.rerr = err
			return nil, err
		}
		if line != nil {
			return line, nil
		}
		if err := c.fill(limit); err != nil {
			return nil, err
		}
	}
}

// stopped says why no read may begin, or go on.
func (c *Conn) stopped() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.closed:
		return fmt.Errorf("wire: read: %w", os.ErrClosed)
	case c.halted:
		return ErrHalted
	}
	return nil
}

// fill waits for bytes and takes in what has arrived.
func (c *Conn) fill(limit int) error {
	in := &c.in
	in.buf = c.lines.room(limit)
	if err := c.raw.Read(in.try); err != nil {
		if stopped := c.stopped(); stopped != nil {
			return stopped
		}
		return fmt.Errorf("wire: read: %w", err)
	}
	// Descriptors come first: they must be owned by somebody whatever else
	// is wrong.
	files, err := in.takeFiles()
	if err := errors.Join(err, c.enqueue(files)); err != nil {
		c.rerr = fmt.Errorf("wire: read: %w", err)
		return c.rerr
	}
	switch {
	case in.err == unix.ECONNRESET:
		// The peer went away without having read all that was sent to
		// it; to a reader that is no different from EOF.
		in.n = 0
	case in.err != nil:
		return fmt.Errorf("wire: read: %w", os.NewSyscallError("recvmsg", in.err))
	}
	if in.n == 0 {
		if c.lines.partial() {
			return io.ErrUnexpectedEOF
		}
		return io.EOF
	}
	c.lines.added(in.n)
	return nil
}

// enqueue owns files from here on.
func (c *Conn) enqueue(files []*os.File) error {
	if len(files) == 0 {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		Residue{Files: files}.Close()
		return os.ErrClosed
	}
	if n := len(c.files) + len(files); n > MaxPending {
		Residue{Files: files}.Close()
		return fmt.Errorf("%w: %d wait to be taken, the cap is %d", ErrTooManyFiles, n, MaxPending)
	}
	c.files = append(c.files, files...)
	c.arrived += len(files)
	return nil
}

// TakeFiles returns the next n descriptors that arrived, in the order in which
// they were sent, close-on-exec; the caller owns them. If fewer have arrived the
// error is ErrMissingFiles and none is taken. The descriptors of a line have
// arrived when Read returns that line.
func (c *Conn) TakeFiles(n int) ([]*os.File, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n < 0 {
		return nil, fmt.Errorf("wire: can't take %d file descriptors", n)
	}
	if n > len(c.files) {
		return nil, fmt.Errorf("wire: %w: %d announced, %d here", ErrMissingFiles, n, len(c.files))
	}
	files := c.files[:n:n]
	c.files = c.files[n:]
	if len(c.files) == 0 {
		c.files = nil
	}
	return files, nil
}

// Pending returns how many descriptors arrived and were not taken.
func (c *Conn) Pending() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.files)
}

// Arrived returns how many descriptors have arrived, those that were taken included, if
// nothing is here of what follows the line that Read has returned last: none of them
// can belong to a later line then. Otherwise, and on a halted Conn, it returns -1. It is
// for the goroutine that reads.
func (c *Conn) Arrived() int {
	c.rmu.Lock()
	defer c.rmu.Unlock()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.halted || c.lines.partial() {
		return -1
	}
	return c.arrived
}

// SetReadDeadline sets the time after which Read fails with
// os.ErrDeadlineExceeded; the zero time means never. What has arrived of a line
// is kept.
func (c *Conn) SetReadDeadline(t time.Time) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rdeadline = t
	if c.halted {
		return nil // Unhalt puts it in force
	}
	return c.f.SetReadDeadline(t)
}

// SetWriteDeadline sets the time after which Send fails with
// os.ErrDeadlineExceeded; the zero time means never. A Send that fails in the
// middle of its line leaves the channel unusable for writing (ErrBroken).
func (c *Conn) SetWriteDeadline(t time.Time) error { return c.f.SetWriteDeadline(t) }

// SyscallConn gives access to the descriptor, to duplicate it or pass it on,
// without clearing O_NONBLOCK as os.File.Fd can. Its callbacks must not call
// Close.
func (c *Conn) SyscallConn() (syscall.RawConn, error) { return c.raw, nil }

// Close closes this process's descriptor and the descriptors that nobody took,
// and makes Read, Send and Halt in other goroutines return os.ErrClosed. The
// peer sees EOF when no other process holds this end. A second Close does
// nothing and returns nil.
func (c *Conn) Close() error {
	c.mu.Lock()
	if c.closed {
		c.mu.Unlock()
		return nil
	}
	c.closed = true
	left := Residue{Files: c.files}
	c.files = nil
	c.mu.Unlock()
	left.Close()
	return c.f.Close()
}
