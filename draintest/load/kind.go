package load

import (
	"fmt"
	"time"
)

// Kind is what a client does with each of its requests.
type Kind int

// The kinds, with what they ask for unless Config.Path says otherwise. Every request of
// each of them but KeepAlive, HTTP2, WebSocket, GRPC, TCP and UDP has a connection of its own,
// and says "Connection: close".
const (
	New    Kind = iota // GET /
	Slow               // GET /slow?ms=SlowMS: in flight for a while, and no answer may come early
	Upload             // POST /upload, trickled; length and SHA-256 in the answer must be the body's
	Stream             // GET /stream?ms=StreamMS: the body must arrive whole
	// KeepAlive is GET / again and again on one connection, which the server must
	// leave open, in use and idle; if it does not, or says that it will not, that is
	// ClosedIdle. A client has one request under way.
	KeepAlive
	// Connect sends nothing: it connects, ends its own side, and the server is to end the
	// other one in order. What it says before that, a greeting for example, is not looked
	// at, so that this is for servers of any protocol.
	Connect
	// HTTP2 is GET / again and again on one HTTP/2 connection: by prior knowledge, or, with
	// Config.TLS, by ALPN. Requests whose time has come are streams beside one another.
	// A server that says that it leaves (GOAWAY) while nothing is lost is ClosedIdle.
	HTTP2
	// WebSocket is a connection to /echo on which each request is a text message, its id,
	// that has to come back. A client has one under way. A connection that ends by a close
	// frame between two of them is ClosedIdle; one that ends without is a failure.
	WebSocket
	// Unix is New over the unix socket Config.Unix, beside those that go to Config.Addr.
	Unix
	// GRPC is a unary call with an empty message, again and again, on one HTTP/2 connection as
	// that of HTTP2: /grpc.health.v1.Health/Check, which any server with gRPC's health service
	// answers. Good is one whole message and grpc-status 0; the answer need not carry
	// X-Request-Id.
	GRPC
	// TCP is a connection on which each request is a line, its id and a newline, that has to
	// come back: to a server that echoes lines, or bytes. It is sent in two pieces, LinePause
	// apart, so that a server is restarted with half a line, too. A client has one under way. A
	// connection that ends between two of them is ClosedIdle. If the address is that of a unix
	// socket, it is there.
	TCP
	// UDP is a socket from which each request is a datagram, its id, that has to come back. A
	// client has one under way. One that has not come back within Config.Timeout is a failure
	// (Timeout), wherever it was lost: in this machine's queues, too, which hold some hundred.
	// After a failure the client has another socket, so that an echo that comes too late is not
	// taken for that of the next one.
	UDP
	numKinds
)

var kindNames = [numKinds]string{"new", "slow", "upload", "stream", "keepalive", "connect", "http2", "websocket", "unix", "grpc", "tcp", "udp"}

var kindPaths = [numKinds]string{"/", "/slow?ms={ms}", "/upload", "/stream?ms={ms}", "/", "/", "/", "/echo", "/", "/grpc.health.v1.Health/Check", "/", "/"}

// Kinds are all there are.
func Kinds() []Kind {
	all := make([]Kind, numKinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// LinePause is the time between the two pieces of a TCP client's line. It is a part of its
// latency.
const LinePause = 10 * time.Millisecond

// kept tells whether a client of the kind keeps its connection, so that it needs one port.
func (k Kind) kept() bool { return k == KeepAlive || k == WebSocket || k.lines() || k.streams() }

// streams tells whether a client's requests are streams of one connection, beside one another.
func (k Kind) streams() bool { return k == HTTP2 || k == GRPC }

// lines tells whether a request is a line, or a datagram, that has to come back.
func (k Kind) lines() bool { return k == TCP || k == UDP }

// plaintext tells whether a client does not speak TLS, whatever Config.TLS says.
func (k Kind) plaintext() bool { return k == Connect || k == Unix || k.lines() }

// String returns the kind in lower case: "new", "slow", "upload", "stream", "keepalive",
// "connect", "http2", "websocket", "unix", "grpc", "tcp", "udp".
func (k Kind) String() string {
	if k < 0 || k >= numKinds {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return kindNames[k]
}
