package control

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// What one who asks may cost. The service's own user and root are trusted, and their
// scripts go wrong all the same.
const (
	requestTime = 5 * time.Second // until the request is there
	maxHeader   = 16 << 10        // bytes
	maxConns    = 256             // at a time, streams among them
	maxStreams  = 64              // at a time
	// goneTime is how long one that is turned away may take to send its request: a client
	// that has asked nothing yet expects no answer.
	goneTime = 200 * time.Millisecond
)

// retryBusy is what who has been turned away is told, in seconds (Retry-After). "0" is
// for one who has asked a process that has just been replaced.
const retryBusy = "1"

// limited turns away whoever comes while there are enough.
type limited struct {
	net.Listener
	open  atomic.Int32
	spare spare
}

func limit(ln net.Listener) *limited {
	l := &limited{Listener: ln}
	l.spare.keep()
	return l
}

func (l *limited) Close() error {
	defer l.spare.end()
	return l.Listener.Close()
}

func (l *limited) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if l.spare.helps(err) {
			continue
		}
		if err != nil {
			return nil, err
		}
		u, ok := c.(*net.UnixConn)
		switch {
		case !ok:
			c.Close()
			return nil, fmt.Errorf("control: a %T and no unix socket", c)
		case l.open.Add(1) <= maxConns:
			return &conn{UnixConn: u, close: sync.OnceFunc(func() { l.open.Add(-1); l.spare.keep() })}, nil
		}
		l.open.Add(-1)
		turnAway(u)
		l.spare.keep()
	}
}

// turnAway answers without looking what the request is.
func turnAway(c *net.UnixConn) {
	defer c.Close()
	body := fmt.Sprintf(`{"error":"%d connections are open already: close some"}`+"\n", maxConns)
	_ = c.SetReadDeadline(time.Now().Add(goneTime))
	_, _ = c.Read(make([]byte, maxHeader))
	_ = c.SetDeadline(time.Now().Add(goneTime))
	_, _ = fmt.Fprintf(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: %d\r\nRetry-After: %s\r\nConnection: close\r\n\r\n%s", len(body), retryBusy, body)
}

// conn is one that counts.
type conn struct {
	*net.UnixConn
	close func()
}

func (c *conn) Close() error {
	defer c.close()
	return c.UnixConn.Close()
}

// stream makes a watcher of a request, if there is a place for it.
func (s *Server) stream(w http.ResponseWriter, take func(*Watcher)) {
	select {
	case s.streams <- struct{}{}:
	default:
		w.Header().Set("Retry-After", retryBusy)
		refuse(w, http.StatusServiceUnavailable, errors.New("too many watch already: end some"))
		return
	}
	conn, err := hijack(w)
	if err != nil {
		<-s.streams
		s.log.Warn("a request on the control socket can't be answered", "error", err)
		return
	}
	take(newWatcher(conn, func() { <-s.streams }))
}

// A stream leaves HTTP. The end of the connection is the end of the answer, so that whoever
// writes last, in whichever process, has nothing to know about it.
const (
	streamHead = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nConnection: close\r\nCache-Control: no-store\r\n\r\n"
	// behindIt would be lost.
	behindIt = "HTTP/1.1 400 Bad Request\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n" + `{"error":"there is something behind the request: wait for the answer"}` + "\n"
)

// hijack takes a request's connection, and begins the answer.
func hijack(w http.ResponseWriter) (net.Conn, error) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return nil, err
	}
	head := streamHead
	if rw.Reader.Buffered() > 0 {
		head, err = behindIt, errors.New("it came with more behind it")
	}
	_ = conn.SetWriteDeadline(time.Now().Add(giveTime)) // there is room: it is the first that is written
	if _, werr := io.WriteString(conn, head); err == nil {
		err = werr
	}
	if err != nil {
		conn.Close()
		return nil, err
	}
	_ = conn.SetWriteDeadline(time.Time{})
	return conn, nil
}
