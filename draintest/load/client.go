package load

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"
	"unicode"
)

const (
	maxHeader  = 1 << 20 // bytes of an answer up to the end of its header
	maxKept    = 4 << 10 // bytes of an answer's body that are looked at
	maxInterim = 8       // 1xx answers before the final one
	closeGrace = 5 * time.Second
)

var errHeaderTooLong = fmt.Errorf("header longer than %d bytes", maxHeader)

// A client makes requests. It is immutable and shared by all goroutines of a load.
type client struct {
	cfg     Config // defaults filled in
	network string
	host    string // value of the Host header
	run     string // makes the ids of this load unlike those of any other
	dial    func(k Kind, deadline time.Time) (net.Conn, error)
}

// newClient resolves cfg.Addr, which is the only thing that can fail.
func newClient(cfg Config, run string) (*client, error) {
	network, address, err := splitAddr(cfg.Addr)
	if err != nil {
		return nil, err
	}
	host := cmp.Or(cfg.Host, "localhost")
	if network == "tcp" {
		host = cmp.Or(cfg.Host, address)
		// net.Dialer tries the addresses of a name one after the other.
		a, err := net.ResolveTCPAddr("tcp", address)
		if err != nil {
			return nil, fmt.Errorf("load: Addr: %w", err)
		}
		address = a.String()
	}
	dial := func(k Kind, deadline time.Time) (net.Conn, error) {
		d := net.Dialer{Deadline: deadline}
		if k == Unix {
			return d.Dial("unix", cfg.Unix)
		}
		return d.Dial(network, address)
	}
	return &client{cfg: cfg, network: network, host: host, run: run, dial: dial}, nil
}

// connect makes a connection for a kind of client, with TLS if that is to be.
func (c *client) connect(k Kind, deadline time.Time) (net.Conn, Class, string) {
	conn, err := c.dial(k, deadline)
	if err != nil {
		network := c.network
		if k == Unix {
			network = "unix"
		}
		return nil, dialClass(network, err), "connecting: " + err.Error()
	}
	if c.cfg.TLS == nil || k == Connect || k == Unix {
		return conn, 0, ""
	}
	secure, class, detail := c.secure(conn, k, deadline)
	if class != 0 {
		conn.Close()
		return nil, class, detail
	}
	return secure, 0, ""
}

// outcome is what became of one request.
type outcome struct {
	kind      Kind
	failure   *Failure  // nil if the answer was good
	answered  time.Time // end of the answer
	worker    string    // X-Worker, if an answer came
	left      bool      // the server did not close the connection
	unmatched bool      // the answer does not say whose it is
	closing   *Failure  // the answer was good, and says that its connection will be closed
}

// do makes request number seq, from connect to close. A KeepAlive one leaves the
// connection open, unless it fails, and the next begins with that.
func (c *client) do(kind Kind, seq uint64, l *link) outcome {
	x := exchange{client: c, seq: seq, failure: Failure{
		Began: time.Now(), Kind: kind, ID: c.run + "-" + strconv.FormatUint(seq, 10)}}
	class, detail := x.run(l)
	// That of HTTP2 is shared, and looks after itself.
	if kind != HTTP2 && (!kind.kept() || class != 0) {
		l.close()
	}
	out := outcome{kind: kind, answered: x.answered, worker: x.failure.Worker, left: x.left, unmatched: x.unmatched}
	if class != 0 {
		f := x.failure
		f.When, f.Class, f.Detail = time.Now(), class, detail
		if class == Closing && kind == KeepAlive {
			out.closing = &f
		} else {
			out.failure = &f
		}
	}
	return out
}

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
	h2   *session // of an HTTP2 one, which is shared by its requests
}

// newLink is one for a client of that kind. idle is told of an HTTP2 one's ends.
func (c *client) newLink(k Kind, idle func(Failure)) *link {
	if k == HTTP2 {
		return &link{h2: &session{client: c, idle: idle}}
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

// An exchange is one request on its connection.
type exchange struct {
	*client
	seq       uint64
	failure   Failure // where and who, filled in on the way in case it fails
	sum       string  // SHA-256 of the body sent
	answered  time.Time
	left      bool
	unmatched bool
}

// run returns the zero Class if all went well.
func (x *exchange) run(l *link) (Class, string) {
	deadline := x.failure.Began.Add(x.cfg.Timeout)
	switch x.failure.Kind {
	case HTTP2:
		return x.stream(l.h2, deadline)
	case WebSocket:
		return x.message(l, deadline)
	}
	if l.conn == nil {
		conn, class, detail := x.connect(x.failure.Kind, deadline)
		if class != 0 {
			return class, detail
		}
		l.open(conn)
	}
	conn := l.conn
	l.use(&x.failure)
	x.failure.Local, x.failure.Remote = conn.LocalAddr().String(), conn.RemoteAddr().String()
	if err := conn.SetDeadline(deadline); err != nil {
		return Other, "setting a deadline: " + err.Error()
	}
	if x.failure.Kind == Connect {
		return x.connectOnly(l)
	}
	// An answer says more about why a request could not be sent than the error
	// does, so there is a look for one in any case.
	sendErr := x.send(conn)
	l.in.begin()
	class, detail := x.receive(l)
	l.last, l.idle = x.failure, time.Now()
	if sendErr != nil && (class == 0 || l.in.n == 0) {
		return ioClass(sendErr, false), "sending the request: " + sendErr.Error()
	}
	return class, detail
}

// connectOnly ends this side, and waits for the end of the other. A server that does not
// care about that is left.
func (x *exchange) connectOnly(l *link) (Class, string) {
	half, ok := l.conn.(interface{ CloseWrite() error })
	if !ok {
		return Other, fmt.Sprintf("%T has no sides", l.conn)
	}
	err := half.CloseWrite()
	if err == nil {
		x.setTailDeadline(l.conn)
		_, err = io.Copy(io.Discard, l.conn)
	}
	x.answered = time.Now()
	if x.left = isTimeout(err); err != nil && !x.left {
		return ioClass(err, false), "waiting for the end: " + err.Error()
	}
	return 0, ""
}

func (x *exchange) send(conn net.Conn) error {
	var head bytes.Buffer
	method := "GET"
	if x.failure.Kind == Upload {
		method = "POST"
	}
	fmt.Fprintf(&head, "%s %s HTTP/1.1\r\nHost: %s\r\nX-Request-Id: %s\r\n",
		method, x.cfg.path(x.failure.Kind), x.host, x.failure.ID)
	if x.failure.Kind != KeepAlive {
		head.WriteString("Connection: close\r\n")
	}
	if x.failure.Kind == Upload {
		fmt.Fprintf(&head, "Content-Length: %d\r\n", x.cfg.UploadBytes)
	}
	x.cfg.Header.Write(&head)
	head.WriteString("\r\n")
	if _, err := conn.Write(head.Bytes()); err != nil || x.failure.Kind != Upload {
		return err
	}
	return x.trickle(conn)
}

// trickle sends the body in pieces: bytes that no other request of this load
// sends, so that a body that went astray shows.
func (x *exchange) trickle(conn net.Conn) error {
	var seed [32]byte
	binary.LittleEndian.PutUint64(seed[:], x.seq)
	copy(seed[8:], x.client.run)
	source, hash := rand.NewChaCha8(seed), sha256.New()
	pieces, size := x.cfg.UploadChunks, x.cfg.UploadBytes
	buf := make([]byte, size/pieces+1)
	for i := range pieces {
		if i > 0 {
			time.Sleep(time.Duration(x.cfg.UploadMS) * time.Millisecond / time.Duration(pieces-1))
		}
		piece := buf[:size*(i+1)/pieces-size*i/pieces]
		source.Read(piece) // never fails
		hash.Write(piece)
		if _, err := conn.Write(piece); err != nil {
			return err
		}
	}
	x.sum = hex.EncodeToString(hash.Sum(nil))
	return nil
}

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
