package load

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"
)

// An echo is a WebSocket connection.
type echo struct {
	ws     *websocket.Conn
	wire   *wire
	worker string // X-Worker of the handshake's answer

	got    chan string   // messages; closed at the end of the connection
	err    error         // why it has ended, when got is closed
	quit   chan struct{} // closed: nobody takes messages any more
	broken bool          // no use in an orderly end
}

// message sends an id, on a connection that it makes if there is none, and waits for it.
func (x *exchange) message(l *link, deadline time.Time) (Class, string) {
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	if l.echo == nil {
		if class, detail := x.shake(ctx, l, deadline); class != 0 {
			return class, detail
		}
	}
	e := l.echo
	l.use(&x.failure)
	x.failure.Local, x.failure.Remote, x.failure.Worker = e.wire.LocalAddr().String(), e.wire.RemoteAddr().String(), e.worker
	last := l.last
	l.last = x.failure
	class, detail := x.echoed(ctx, e, last.ID)
	e.broken = class != 0
	l.idle = time.Now()
	return class, detail
}

// shake makes the connection.
func (x *exchange) shake(ctx context.Context, l *link, deadline time.Time) (Class, string) {
	conn, class, detail := x.connect(WebSocket, deadline)
	if class != 0 {
		return class, detail
	}
	w := newWire(conn, false)
	x.failure.Local, x.failure.Remote, x.failure.Connected = conn.LocalAddr().String(), conn.RemoteAddr().String(), time.Now()
	header := x.cfg.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	header.Set("X-Request-Id", x.failure.ID)
	ws, resp, err := websocket.Dial(ctx, "ws://"+x.targets[WebSocket].host+x.cfg.path(WebSocket), &websocket.DialOptions{
		HTTPHeader: header,
		HTTPClient: &http.Client{
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
			Transport: &http.Transport{
				DisableKeepAlives: true, // one request a connection: an answer other than 101 ends it
				DialContext:       func(context.Context, string, string) (net.Conn, error) { return w, nil },
			},
		},
	})
	if err != nil {
		w.Close()
		return shakeClass(ctx, w, resp, err)
	}
	*l = link{made: x.failure.Connected, last: l.last, echo: &echo{ws: ws, wire: w,
		worker: resp.Header.Get(x.cfg.WorkerHeader), got: make(chan string), quit: make(chan struct{})}}
	go l.echo.read()
	return 0, ""
}

// shakeClass says why there is no connection.
func shakeClass(ctx context.Context, w *wire, resp *http.Response, err error) (Class, string) {
	n, _, lost := w.seen()
	switch {
	case resp != nil && resp.StatusCode != http.StatusSwitchingProtocols:
		return Status, resp.Status
	case ctx.Err() != nil:
		return Timeout, "waiting for the handshake's answer: " + err.Error()
	case lost != nil:
		return ioClass(lost, n > 0), "waiting for the handshake's answer: " + lost.Error()
	}
	return Body, "WebSocket handshake: " + err.Error()
}

// read passes messages on. It ends with the connection, which it makes known by closing got.
func (e *echo) read() {
	defer close(e.got)
	for {
		_, text, err := e.ws.Read(context.Background())
		if err != nil {
			e.err = err
			return
		}
		select {
		case e.got <- string(text):
		case <-e.quit:
		}
	}
}

// close ends the connection and waits for its reader.
func (e *echo) close() {
	close(e.quit)
	if e.broken {
		e.ws.CloseNow()
	} else {
		e.ws.Close(websocket.StatusNormalClosure, "")
	}
	for range e.got {
	}
}

// echoed sends the request's id, and waits until it comes back.
func (x *exchange) echoed(ctx context.Context, e *echo, last string) (Class, string) {
	if err := e.ws.Write(ctx, websocket.MessageText, []byte(x.failure.ID)); err != nil && !e.wire.isOver() {
		return ioClass(err, false), "sending a message: " + err.Error()
	}
	for {
		select {
		case text, ok := <-e.got:
			switch id := x.idIn(text); {
			case !ok:
				return e.ended("waiting for the echo: ")
			case id == "":
				// a greeting, or news
			case id == last:
				return Duplicated, fmt.Sprintf("a second echo of message %s", id)
			case id != x.failure.ID:
				return CrossTalk, "echo of message " + id
			case text != id && !x.cfg.Plain:
				return Body, fmt.Sprintf("sent %q, there came %.200q", id, text)
			default:
				x.answered = time.Now()
				return 0, ""
			}
		case <-ctx.Done():
			return Timeout, "waiting for the echo"
		}
	}
}

// idIn is the id of this load that is in a text, or "".
func (c *client) idIn(text string) string {
	i := strings.Index(text, c.run+"-")
	if i < 0 {
		return ""
	}
	number := text[i+len(c.run)+1:]
	if n := strings.IndexFunc(number, func(r rune) bool { return r < '0' || r > '9' }); n >= 0 {
		number = number[:n]
	}
	return c.run + "-" + number
}

// ended says how the connection has. Its got is closed.
func (e *echo) ended(when string) (Class, string) {
	if status := websocket.CloseStatus(e.err); status != -1 {
		return Closing, fmt.Sprintf("%sthe server closes: %d (%v)", when, status, status)
	}
	if _, _, lost := e.wire.seen(); lost != nil {
		return ioClass(lost, false), when + lost.Error() + ", without a close frame"
	}
	return Body, when + e.err.Error()
}

// restEcho is rest for a WebSocket.
func (l *Load) restEcho(kept *link, until time.Time) bool {
	e := kept.echo
	if e == nil {
		return l.wait(until)
	}
	timer := time.NewTimer(time.Until(until))
	defer timer.Stop()
	for {
		select {
		case text, ok := <-e.got:
			if ok && l.client.idIn(text) == "" {
				continue
			}
			l.endedIdle(kept, text, ok)
			return l.wait(until)
		case <-timer.C:
			l.woken(until, kept.idle)
			return true
		case <-l.ctx.Done():
			return false
		}
	}
}

// endedIdle counts a connection that has ended between two messages: as a request that has
// failed, unless the end was in order.
func (l *Load) endedIdle(kept *link, text string, open bool) {
	f := kept.last
	f.Began, f.When, f.Think = kept.idle, time.Now(), time.Since(kept.idle)
	if f.Class, f.Detail = Duplicated, fmt.Sprintf("idle, and there came %.100q", text); !open {
		f.Class, f.Detail = kept.echo.ended("idle: ")
	}
	kept.echo.broken = f.Class != Closing
	kept.close()
	if f.Class == Closing {
		f.Class = ClosedIdle
	}
	l.between(f)
}
