package wire

import (
	"bytes"
	"slices"
)

const (
	minBuffer  = 4 << 10  // what a quiet connection holds
	keepBuffer = 64 << 10 // what it goes on holding after a long line
)

// lines cuts a stream of bytes into lines. It does no I/O: the caller reads into
// room, says by added how much that was, and asks next for lines until there is
// none. The zero value is ready.
type lines struct {
	buf     []byte
	r, w    int // buf[r:w] arrived and was not delivered
	scanned int // the first bytes of buf[r:w] that are known to hold no newline
}

// next returns the next whole line without its newline, or nil if it has not
// arrived whole. Empty lines are skipped. The line is a part of the buffer and
// lasts until room is called. A line over limit bytes is an error, and stays
// the next one.
func (l *lines) next(limit int) ([]byte, error) {
	for {
		rest := l.buf[l.r:l.w]
		i := bytes.IndexByte(rest[l.scanned:], '\n')
		if i < 0 {
			l.scanned = len(rest)
			if len(rest) > limit {
				return nil, &LineTooLongError{Cap: limit}
			}
			return nil, nil
		}
		i += l.scanned
		if i > limit {
			return nil, &LineTooLongError{Cap: limit, Size: i}
		}
		l.r += i + 1
		l.scanned = 0
		if i > 0 {
			return rest[:i:i], nil
		}
	}
}

// room returns where to read to: at least one byte, and never so much that more
// than limit bytes and a newline would be held. It is called only after next
// has returned neither a line nor an error under the same limit.
func (l *lines) room(limit int) []byte {
	held := l.w - l.r
	switch {
	case held == 0 && len(l.buf) > keepBuffer:
		l.buf = nil
	case l.r > 0:
		// Each half line is moved once at most: from here on it starts
		// at 0.
		copy(l.buf, l.buf[l.r:l.w])
	}
	l.r, l.w = 0, held
	if held == len(l.buf) {
		grown := make([]byte, min(max(minBuffer, 2*held), limit+1))
		copy(grown, l.buf)
		l.buf = grown
	}
	return l.buf[held:min(len(l.buf), limit+1)]
}

// added says that n bytes were read into what room returned.
func (l *lines) added(n int) { l.w += n }

// partial reports whether a line has begun and not ended.
func (l *lines) partial() bool { return l.w > l.r }

// take removes all that was not delivered and returns a copy of it.
func (l *lines) take() []byte {
	rest := slices.Clone(l.buf[l.r:l.w])
	*l = lines{}
	return rest
}

// put adds bytes that an earlier reader had left over, in front of what is here.
func (l *lines) put(b []byte) {
	buf := slices.Concat(b, l.buf[l.r:l.w])
	*l = lines{buf: buf, w: len(buf)}
}
