// Package wire is the channel between a parent and its workers, and between
// two parents during an upgrade: newline-delimited JSON on a unix stream
// socketpair, with file descriptors sent along by SCM_RIGHTS. That is the IPC
// format of Node's child_process; PROTOCOL.md beside this file writes it down.
//
// What stands behind the other end may be any program. Whatever it sends, a
// Conn returns an error, never panics, buffers no more than its cap, and closes
// every descriptor that nobody took.
package wire

import (
	"errors"
	"fmt"
	"os"
)

const (
	// MaxLine is the default cap of a line in bytes, its newline excluded.
	MaxLine = 1 << 20
	// MaxTryLine is the cap of a line sent by TrySend, in bytes, its newline
	// excluded: what a socket buffer takes whole or not at all.
	MaxTryLine = 4096
	// MaxFiles is how many descriptors go with one line: SCM_MAX_FD of
	// Linux (unix(7)).
	MaxFiles = 253
	// MaxPending is how many descriptors may wait in a Conn to be taken.
	MaxPending = 1024
)

// The errors that a caller may act on; use errors.Is. Closed connections and
// deadlines are os.ErrClosed and os.ErrDeadlineExceeded, and a write to a peer
// that has gone is syscall.EPIPE.
var (
	// ErrNotChannel: the descriptor is no unix stream socket. The error is a
	// *NotChannelError.
	ErrNotChannel = errors.New("not a channel")
	// ErrLineTooLong: a line is longer than the cap. The error is a
	// *LineTooLongError. After a Read returned it, the Conn reads no more.
	ErrLineTooLong = errors.New("line too long")
	// ErrTooManyFiles: more than MaxPending descriptors arrived that nobody
	// took (the Conn then reads no more), or more than MaxFiles were to be
	// sent with one line.
	ErrTooManyFiles = errors.New("too many file descriptors")
	// ErrFilesLost: descriptors were sent but this process could not receive
	// them all, for instance at its RLIMIT_NOFILE. Those of that message are
	// closed, and the Conn reads no more, because the order is lost.
	ErrFilesLost = errors.New("file descriptors lost on arrival")
	// ErrMissingFiles: a message announces more descriptors than arrived.
	ErrMissingFiles = errors.New("fewer file descriptors arrived than announced")
	// ErrFull: the peer does not read fast enough, so that TrySend would
	// have to wait. Nothing was written.
	ErrFull = errors.New("channel full")
	// ErrBroken: an earlier Send failed with its line half written, so that
	// whatever followed would be garbage to the peer.
	ErrBroken = errors.New("channel broken: an earlier line was cut short")
	// ErrHalted: Halt was called.
	ErrHalted = errors.New("channel halted")
	// ErrBadMessage: a line is not a JSON object. The error is a
	// *BadMessageError.
	ErrBadMessage = errors.New("bad message")
)

// NotChannelError says what a descriptor is that should have been a channel.
// It matches ErrNotChannel.
type NotChannelError struct {
	FD   int    // its number in this process, -1 when there is none
	What string // such as "a pipe"
}

// Error names the descriptor and what it is.
func (e *NotChannelError) Error() string {
	return fmt.Sprintf("wire: descriptor %d is %s, not a connected unix stream socket", e.FD, e.What)
}

// Unwrap returns ErrNotChannel.
func (e *NotChannelError) Unwrap() error { return ErrNotChannel }

// LineTooLongError matches ErrLineTooLong.
type LineTooLongError struct {
	Cap  int // the most that is allowed, in bytes without the newline
	Size int // the line's length in bytes where it is known, else 0
}

// Error names the cap, and the size where it is known.
func (e *LineTooLongError) Error() string {
	if e.Size > 0 {
		return fmt.Sprintf("wire: line too long: %d bytes, the cap is %d", e.Size, e.Cap)
	}
	return fmt.Sprintf("wire: line too long: more than the cap of %d bytes and no newline", e.Cap)
}

// Unwrap returns ErrLineTooLong.
func (e *LineTooLongError) Unwrap() error { return ErrLineTooLong }

// Residue is what one reader of a connection had taken from the socket and not
// yet delivered: what the next one, in this process or another, must start
// with. Whoever holds it owns the Files.
type Residue struct {
	Bytes []byte     // what follows the last line that was delivered
	Files []*os.File // descriptors that nobody took, in the order of arrival
}

// Close closes the Files.
func (r Residue) Close() {
	for _, f := range r.Files {
		f.Close()
	}
}
