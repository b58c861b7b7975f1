package load

import (
	"bufio"
	"net"
	"time"
)

// A link is a connection, or none, and what was read from it.
type link struct {
	conn net.Conn
	made time.Time
	in   *answerReader
	br   *bufio.Reader
	n    int       // requests
	idle time.Time // since when
	last Failure   // where and who of the last request

	echo *echo    // of a WebSocket client
	h2   *session // of an HTTP2 or GRPC one, which is shared by its requests
}

// newLink is one for a client of that kind. idle is told of ends of one that streams share.
func (c *client) newLink(k Kind, idle func(Failure)) *link {
	if k.streams() {
		return &link{h2: &session{client: c, kind: k, idle: idle}}
	}
	return &link{}
}

func (l *link) open(conn net.Conn) {
	in := &answerReader{conn: conn}
	*l = link{conn: conn, made: time.Now(), in: in, br: bufio.NewReader(in)}
}

func (l *link) close() {
	switch {
	case l.h2 != nil:
		l.h2.close()
	case l.echo != nil:
		l.echo.close()
		*l = link{}
	case l.conn != nil:
		l.conn.Close()
		*l = link{}
	}
}

// use counts a request on the link.
func (l *link) use(f *Failure) {
	l.n++
	f.Nth, f.Connected = l.n, l.made
	if l.n > 1 {
		f.Think = f.Began.Sub(l.idle)
	}
}

// An answerReader reads from the connection, counts, and keeps the first error,
// since the layers above it turn errors into others.
type answerReader struct {
	conn  net.Conn
	n     int64
	limit int64 // bytes in all; 0 for none
	err   error
}

// begin prepares for the next answer.
func (r *answerReader) begin() { r.n, r.limit, r.err = 0, maxHeader, nil }

func (r *answerReader) Read(p []byte) (int, error) {
	if r.limit > 0 && r.n >= r.limit {
		r.err = errHeaderTooLong
		return 0, r.err
	}
	n, err := r.conn.Read(p)
	r.n += int64(n)
	if err != nil && r.err == nil {
		r.err = err
	}
	return n, err
}

// classify turns an error of a layer above into a failure. If the connection had
// none, what came over it was at fault.
func (r *answerReader) classify(err error, before, within string) (Class, string) {
	if r.err == nil {
		return Body, within + ": " + err.Error()
	}
	if r.n == 0 {
		within = before
	}
	return ioClass(r.err, r.n > 0), within + ": " + r.err.Error()
}
