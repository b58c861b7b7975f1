package load

import (
	"encoding/binary"
	"errors"
	"net"
	"sync"
)

// Frames of HTTP/2: RFC 9113, section 4.1. By a GOAWAY (section 6.8) a server says that it
// leaves, by HEADERS (section 6.2) a client asks.
const (
	frameHead    = 9 // bytes: length, type, flags, stream
	frameHeaders = 1
	frameGoAway  = 7
	streamMask   = 1<<31 - 1
	preface      = 24 // bytes that a client sends first
)

// A wire is a connection below a layer that turns errors into others: it counts what is
// read, keeps the first error, of a write too, and sees when nothing new can be asked any more.
type wire struct {
	net.Conn
	http2 bool          // look for GOAWAY
	over  chan struct{} // closed: it has ended, or there was a GOAWAY

	mu    sync.Mutex
	ended bool
	away  bool // there was a GOAWAY
	n     int64
	err   error // if it is not this side that has closed it
	in    frames
	out   frames
	asked uint32 // the last stream that was begun before there was a GOAWAY
	last  uint32 // the last one that the server says it has looked at
}

func newWire(conn net.Conn, http2 bool) *wire {
	return &wire{Conn: conn, http2: http2, over: make(chan struct{}), out: frames{skip: preface}}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += int64(n)
	if w.http2 {
		w.in.scan(p[:n], w.received)
	}
	if err != nil {
		w.keep(err)
		w.end()
	}
	return n, err
}

// Write may see before any read that the connection has ended. What comes of it is the same
// for all who share the connection, which is then closed above.
func (w *wire) Write(p []byte) (int, error) {
	if w.http2 {
		w.mu.Lock()
		w.out.scan(p, w.sending)
		w.mu.Unlock()
	}
	n, err := w.Conn.Write(p)
	if err != nil {
		w.mu.Lock()
		w.keep(err)
		w.mu.Unlock()
	}
	return n, err
}

// keep keeps the first error. The caller holds mu.
func (w *wire) keep(err error) {
	if w.err == nil && !errors.Is(err, net.ErrClosed) {
		w.err = err
	}
}

func (w *wire) Close() error {
	w.mu.Lock()
	w.end()
	w.mu.Unlock()
	return w.Conn.Close()
}

// end closes over. The caller holds mu.
func (w *wire) end() {
	if !w.ended {
		w.ended = true
		close(w.over)
	}
}

// late tells whether every request that the server says it has not looked at was sent when
// its GOAWAY had been read: net/http may begin a stream then, which a client must not (RFC 9113,
// section 6.8), and no server has to look at.
func (w *wire) late() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.away && w.asked <= w.last
}

// used tells whether a request was sent before the client could know that the server leaves.
func (w *wire) used() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked > 0
}

// received is told of the frames that come.
func (w *wire) received(head []byte) {
	if head[3] == frameGoAway && len(head) > frameHead {
		last := binary.BigEndian.Uint32(head[frameHead:]) & streamMask
		if w.away {
			last = min(last, w.last) // what was refused stays so, whatever a later one says
		}
		w.away, w.last = true, last
		w.end()
	}
}

// sending is told of the frames that go.
func (w *wire) sending(head []byte) {
	if head[3] == frameHeaders && !w.away {
		w.asked = max(w.asked, binary.BigEndian.Uint32(head[5:])&streamMask)
	}
}

// frames goes through those of HTTP/2: RFC 9113, section 4.1.
type frames struct {
	skip int // bytes up to the next one
	head []byte
}

// scan passes on the head of each frame, with the last stream of a GOAWAY.
func (f *frames) scan(p []byte, each func(head []byte)) {
	for len(p) > 0 {
		if n := min(f.skip, len(p)); n > 0 {
			f.skip -= n
			p = p[n:]
			continue
		}
		want := frameHead
		if len(f.head) >= frameHead { // of a GOAWAY
			want += 4
		}
		n := min(want-len(f.head), len(p))
		f.head = append(f.head, p[:n]...)
		p = p[n:]
		if len(f.head) < want {
			return
		}
		size := int(f.head[0])<<16 | int(f.head[1])<<8 | int(f.head[2])
		if want == frameHead && f.head[3] == frameGoAway && size >= 4 {
			continue
		}
		each(f.head)
		f.skip = size - (want - frameHead)
		f.head = f.head[:0]
	}
}

// seen is what has come so far: bytes, a GOAWAY, an error.
func (w *wire) seen() (n int64, away bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.n, w.away, w.err
}

func (w *wire) isOver() bool {
	select {
	case <-w.over:
		return true
	default:
		return false
	}
}
