package load

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// receive reads the one answer, and the end of the connection after it, unless that
// is kept.
func (x *exchange) receive(l *link) (Class, string) {
	in, br := l.in, l.br
	resp, err := readFinal(br)
	if err != nil {
		return in.classify(err, "waiting for the answer", "in the answer's header")
	}
	in.limit = 0
	if class, detail := x.read(resp, in.classify); class != 0 {
		return class, detail
	}
	if resp.ContentLength < 0 && len(resp.TransferEncoding) == 0 {
		return Body, "answer with neither Content-Length nor chunked: can't be told from one that was cut"
	}
	if x.failure.Kind == KeepAlive {
		return staysOpen(resp, br)
	}
	return x.drainTail(l.conn, br)
}

// read reads the rest of an answer, and says what is wrong with it. classify is for errors
// of its body.
func (x *exchange) read(resp *http.Response, classify func(err error, before, within string) (Class, string)) (Class, string) {
	x.failure.Worker = resp.Header.Get(x.cfg.WorkerHeader)

	// The body is not closed: Close would read what is left of it, and there is
	// nothing else to free.
	id := resp.Header.Get("X-Request-Id")
	if id != "" && id != x.failure.ID {
		return CrossTalk, "answer to request " + id
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxKept))
	if resp.StatusCode != x.cfg.Status {
		return Status, fmt.Sprintf("%s: %.200q", resp.Status, body)
	}
	if x.unmatched = id == ""; x.unmatched && !x.cfg.Plain {
		return Body, "answer without X-Request-Id"
	}
	size := int64(len(body))
	if err == nil {
		var more int64
		more, err = io.Copy(io.Discard, resp.Body)
		size += more
	}
	if err != nil {
		where := fmt.Sprintf("after %d bytes of the answer's body", size)
		return classify(err, where, where)
	}
	x.answered = time.Now()
	if wrong := x.judge(body, size); wrong != "" {
		return Body, wrong
	}
	return 0, ""
}

// judge says what is wrong with a whole answer to this request.
func (x *exchange) judge(body []byte, size int64) string {
	took := x.answered.Sub(x.failure.Connected)
	early := func(ms int) string {
		return fmt.Sprintf("answer complete after %v, asked for %d ms: its handler was cut short",
			took.Round(time.Millisecond), ms)
	}
	switch x.failure.Kind {
	case Slow:
		// A tenth is for servers whose timers may run a little short.
		if x.cfg.timed(Slow) && took < time.Duration(x.cfg.SlowMS)*time.Millisecond*9/10 {
			return early(x.cfg.SlowMS)
		}
	case Stream:
		if size == 0 {
			return "empty stream"
		}
		// Half is for servers that don't pause after the last piece.
		if x.cfg.timed(Stream) && took < time.Duration(x.cfg.StreamMS)*time.Millisecond/2 {
			return early(x.cfg.StreamMS)
		}
	case Upload:
		if x.cfg.Plain {
			return ""
		}
		var length, sum bool
		for _, word := range strings.FieldsFunc(string(body), func(r rune) bool {
			return !unicode.IsLetter(r) && !unicode.IsDigit(r)
		}) {
			length = length || word == strconv.Itoa(x.cfg.UploadBytes)
			sum = sum || strings.EqualFold(word, x.sum)
		}
		if !length || !sum {
			return fmt.Sprintf("sent %d bytes with SHA-256 %s, the answer says %.200q", x.cfg.UploadBytes, x.sum, body)
		}
	}
	return ""
}

// drainTail reads on to the end of the connection, which the server was asked to
// close. A reset instead of an end takes nothing from the client any more.
func (x *exchange) drainTail(conn net.Conn, br *bufio.Reader) (Class, string) {
	x.setTailDeadline(conn)
	_, err := br.Peek(1)
	if err == nil {
		more, _ := br.Peek(br.Buffered())
		return Duplicated, afterEnd(more)
	}
	x.left = isTimeout(err)
	return 0, ""
}

// setTailDeadline is for reading to the end of a connection.
func (x *exchange) setTailDeadline(conn net.Conn) {
	deadline := x.failure.Began.Add(x.cfg.Timeout)
	if grace := time.Now().Add(closeGrace); grace.Before(deadline) {
		deadline = grace
	}
	conn.SetReadDeadline(deadline) // fails only where the read fails as well
}

// staysOpen says what is wrong with the end of an answer after which there is to be
// another one. What comes later is seen while the connection is idle.
func staysOpen(resp *http.Response, br *bufio.Reader) (Class, string) {
	if resp.Close {
		return Closing, "the answer says that the connection will be closed"
	}
	if n := br.Buffered(); n > 0 {
		more, _ := br.Peek(n)
		return Duplicated, afterEnd(more)
	}
	return 0, ""
}

func afterEnd(more []byte) string {
	return fmt.Sprintf("after the end of the answer came %.100q", more)
}

// readFinal reads the header of the answer, passing over interim ones (RFC 9110,
// section 15.2). 101 is final: nobody asked for it.
func readFinal(br *bufio.Reader) (*http.Response, error) {
	for range maxInterim {
		resp, err := http.ReadResponse(br, nil)
		if err != nil || resp.StatusCode >= 200 || resp.StatusCode == http.StatusSwitchingProtocols {
			return resp, err
		}
	}
	return nil, errors.New("too many interim answers")
}
