// Package moving passes live connections from one process to another: a queue of
// messages, each one connection's descriptor and what was read from it already.
//
// The queue is a pair of sockets (SOCK_SEQPACKET, unix(7)). Its holder, who neither
// gives nor takes, keeps both ends open, so that what is queued outlives givers and
// takers; the kernel hands each message to one taker.
//
// # Format
//
// A message is a header, at most [MaxHeld] bytes that were read from the connection,
// and one descriptor (SCM_RIGHTS). The header:
//
//	0    'h'
//	1    version, 1
//	2    the header's length, 8: what a later version adds to it is skipped
//	3    flags: 1 the last request was a POST; others are skipped
//	4-7  how long it may stay idle from now on, in milliseconds, big endian; 0: for ever
//
// A version that could not be understood in this way would use a queue of its own:
// whoever takes a message that it can't read has lost the connection.
package moving

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"time"
)

// MaxHeld is how many bytes of a next request can go with a connection.
const MaxHeld = 4096

const (
	magic     = 'h'
	version   = 1
	headerLen = 8
	maxHeader = 255

	flagPost = 1
)

var (
	// ErrFull: nothing more fits into the queue now, or this user has as many
	// descriptors on their way as it may (ETOOMANYREFS, unix(7)).
	ErrFull = errors.New("moving: the queue is full")
	// ErrMessage is wrapped by errors about a message that can't be understood.
	ErrMessage = errors.New("moving: not a connection")
	// ErrUnsupported: connections move on Linux only.
	ErrUnsupported = fmt.Errorf("moving: connections can't move on this system: %w", errors.ErrUnsupported)
)

// Message is what goes with a connection.
type Message struct {
	// Idle is how long the connection may go on waiting for a request, 0 for ever.
	Idle time.Duration
	// Post: its last request was a POST, after which stray line ends are forgiven
	// (RFC 9112, section 2.2).
	Post bool
	// Held are the bytes of the next request that were read, at most MaxHeld.
	Held []byte
}

// encode writes m. Times are rounded up, so that they don't become for ever.
func encode(b []byte, m Message) []byte {
	ms := min((m.Idle+time.Millisecond-1)/time.Millisecond, math.MaxUint32)
	var flags byte
	if m.Post {
		flags |= flagPost
	}
	b = append(b, magic, version, headerLen, flags)
	b = binary.BigEndian.AppendUint32(b, uint32(max(ms, 0)))
	return append(b, m.Held...)
}

// decode reads what encode, or that of a later version, has written. Held is a part
// of b.
func decode(b []byte) (Message, error) {
	switch {
	case len(b) < headerLen || b[0] != magic || b[1] == 0:
		return Message{}, fmt.Errorf("%w: no header", ErrMessage)
	case int(b[2]) < headerLen || int(b[2]) > len(b):
		return Message{}, fmt.Errorf("%w: a header of %d bytes in a message of %d", ErrMessage, b[2], len(b))
	}
	m := Message{
		Idle: time.Duration(binary.BigEndian.Uint32(b[4:])) * time.Millisecond,
		Post: b[3]&flagPost != 0,
		Held: b[b[2]:],
	}
	if len(m.Held) > MaxHeld {
		return Message{}, fmt.Errorf("%w: %d bytes read, at most %d can be", ErrMessage, len(m.Held), MaxHeld)
	}
	return m, nil
}
