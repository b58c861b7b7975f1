package load

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"strconv"
	"time"
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
	targets [numKinds]target
	run     string // makes the ids of this load unlike those of any other
	dial    func(k Kind, deadline time.Time) (net.Conn, error)
}

// A target is where clients of a kind connect to.
type target struct {
	network, address string
	host             string // value of the Host header
}

// newClient resolves cfg.Addr and cfg.Addrs, which is the only thing that can fail.
func newClient(cfg Config, run string) (*client, error) {
	c := &client{cfg: cfg, run: run}
	c.dial = func(k Kind, deadline time.Time) (net.Conn, error) {
		d := net.Dialer{Deadline: deadline}
		to := c.targets[k]
		if k != UDP {
			return d.Dial(to.network, to.address)
		}
		conn, err := d.Dial("udp", to.address)
		if err != nil {
			return nil, err
		}
		return datagrams{conn}, nil
	}
	known := map[string]target{} // a name is resolved once, for all kinds
	for _, k := range Kinds() {
		addr := cfg.addr(k)
		to, ok := known[addr]
		if !ok && cfg.Clients[k] > 0 {
			var err error
			if to, err = newTarget(addr, cfg.Host); err != nil {
				return nil, fmt.Errorf("load: Addr: %w", err)
			}
			known[addr] = to
		}
		c.targets[k] = to
	}
	return c, nil
}

// newTarget resolves an address.
func newTarget(addr, host string) (target, error) {
	network, address, err := splitAddr(addr)
	if err != nil {
		return target{}, err
	}
	if network == "unix" {
		return target{network, address, cmp.Or(host, "localhost")}, nil
	}
	// net.Dialer tries the addresses of a name one after the other.
	a, err := net.ResolveTCPAddr("tcp", address)
	if err != nil {
		return target{}, err
	}
	return target{network, a.String(), cmp.Or(host, address)}, nil
}

// connect makes a connection for a kind of client, with TLS if that is to be.
func (c *client) connect(k Kind, deadline time.Time) (net.Conn, Class, string) {
	conn, err := c.dial(k, deadline)
	if err != nil {
		return nil, dialClass(c.targets[k].network, err), "connecting: " + err.Error()
	}
	if c.cfg.TLS == nil || k.plaintext() {
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
	// One that is shared by streams looks after itself.
	if !kind.streams() && (!kind.kept() || class != 0) {
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
	case HTTP2, GRPC:
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
	switch x.failure.Kind {
	case Connect:
		return x.connectOnly(l)
	case TCP, UDP:
		return x.line(l)
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
		method, x.cfg.path(x.failure.Kind), x.targets[x.failure.Kind].host, x.failure.ID)
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
