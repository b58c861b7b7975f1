package load

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// line sends the request's id as a line, or a datagram, and waits until it comes back.
func (x *exchange) line(l *link) (Class, string) {
	last := l.last.ID
	class, detail := x.sendLine(l.conn)
	if class == 0 {
		class, detail = x.awaitLine(l, last)
	}
	l.last, l.idle = x.failure, time.Now()
	return class, detail
}

func (x *exchange) sendLine(conn net.Conn) (Class, string) {
	pieces := []string{x.failure.ID}
	if x.failure.Kind == TCP {
		half := len(x.failure.ID) / 2
		pieces = []string{x.failure.ID[:half], x.failure.ID[half:] + "\n"}
	}
	for i, piece := range pieces {
		if i > 0 {
			time.Sleep(LinePause)
		}
		if _, err := io.WriteString(conn, piece); err != nil {
			return ioClass(err, false), "sending: " + err.Error()
		}
	}
	return 0, ""
}

func (x *exchange) awaitLine(l *link, last string) (Class, string) {
	for {
		text, err := readLine(l.br)
		switch {
		case isTimeout(err) && x.failure.Kind == UDP:
			return Timeout, fmt.Sprintf("no echo within %v: one of both was lost", x.cfg.Timeout)
		case err != nil:
			return noLine(err, text, "waiting for the echo")
		case x.idIn(text) != x.failure.ID:
			if class, detail := x.stray(text, last); class != 0 {
				return class, detail
			}
		case text != x.failure.ID && !x.cfg.Plain:
			return Body, fmt.Sprintf("sent %q, there came %.200q", x.failure.ID, text)
		default:
			x.answered = time.Now()
			return 0, ""
		}
	}
}

// noLine says what it means that there came no more than a part of a line.
func noLine(err error, part, when string) (Class, string) {
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		return Body, fmt.Sprintf("%s: a line of more than %d bytes: %.100q", when, len(part), part)
	case part != "":
		when = fmt.Sprintf("%s, after %.100q", when, part)
	}
	return ioClass(err, part != ""), when + ": " + err.Error()
}

// stray says what is wrong with a line that nobody waits for. A server that does not know of
// this package may greet, and tell news.
func (c *client) stray(text, last string) (Class, string) {
	switch id := c.idIn(text); {
	case id == "" && c.cfg.Plain:
		return 0, ""
	case id == "":
		return Body, fmt.Sprintf("there came %.100q, which is no echo", text)
	case id == last:
		return Duplicated, "a second echo of " + id
	default:
		return CrossTalk, "echo of " + id
	}
}

// restLine is rest for a TCP or UDP client.
func (l *Load) restLine(kept *link, until time.Time) bool {
	for kept.conn != nil {
		conn := kept.conn
		conn.SetReadDeadline(until) // fails only where the read fails as well
		unhook := context.AfterFunc(l.ctx, func() { conn.SetReadDeadline(past) })
		text, err := readLine(kept.br)
		unhook()
		if isTimeout(err) {
			if l.ctx.Err() == nil {
				l.woken(until, kept.idle)
			}
			break
		}
		f := kept.last
		switch f.Class, f.Detail = l.client.stray(text, f.ID); {
		case err != nil:
			f.Class, f.Detail = noLine(err, text, "idle")
			if f.Kind == TCP && text == "" {
				f.Class = ClosedIdle
			}
		case f.Class == 0:
			continue
		default:
			f.Detail = "idle, and there came: " + f.Detail
		}
		f.Began, f.When, f.Think = kept.idle, time.Now(), time.Since(kept.idle)
		kept.close()
		l.between(f)
	}
	return l.wait(until)
}

// readLine reads a line. With an error it returns the part that there is, which is left to be
// read.
func readLine(br *bufio.Reader) (string, error) {
	for want := 1; ; {
		have, err := br.Peek(want)
		if err == nil {
			have, _ = br.Peek(br.Buffered())
		}
		if i := bytes.IndexByte(have, '\n'); i >= 0 {
			br.Discard(i + 1)
			return string(have[:i]), nil
		}
		if err != nil {
			return string(have), err
		}
		want = len(have) + 1
	}
}

// datagrams is a packet socket as a stream of lines, of which each datagram is one.
type datagrams struct{ net.Conn }

// Read reads a datagram, into a buffer that has room for all of it.
func (d datagrams) Read(p []byte) (int, error) {
	n, err := d.Conn.Read(p[:len(p)-1])
	if err != nil || n > 0 && p[n-1] == '\n' {
		return n, err
	}
	p[n] = '\n'
	return n + 1, nil
}
