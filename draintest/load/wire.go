package load

import (
	"errors"
	"net"
	"sync"
)

// frameGoAway is the type of the HTTP/2 frame by which a server says that it leaves: RFC
// 9113, section 6.8.
const frameGoAway = 7

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
	head  []byte
	skip  int // bytes up to the next frame
}

func newWire(conn net.Conn, http2 bool) *wire {
	return &wire{Conn: conn, http2: http2, over: make(chan struct{})}
}

func (w *wire) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.n += int64(n)
	if w.http2 {
		w.scan(p[:n])
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

// scan goes through frames: RFC 9113, section 4.1.
func (w *wire) scan(p []byte) {
	const header = 9
	for len(p) > 0 {
		if n := min(w.skip, len(p)); n > 0 {
			w.skip -= n
			p = p[n:]
			continue
		}
		n := min(header-len(w.head), len(p))
		w.head = append(w.head, p[:n]...)
		p = p[n:]
		if len(w.head) < header {
			return
		}
		w.skip = int(w.head[0])<<16 | int(w.head[1])<<8 | int(w.head[2])
		if w.head[3] == frameGoAway {
			w.away = true
			w.end()
		}
		w.head = w.head[:0]
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
