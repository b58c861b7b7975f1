package load

import (
	"fmt"
)

// Kind is what a client does with each of its requests.
type Kind int

// The kinds, with what they ask for unless Config.Path says otherwise. Every request of
// each of them but KeepAlive, HTTP2 and WebSocket has a connection of its own, and says
// "Connection: close".
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
	numKinds
)

var kindNames = [numKinds]string{"new", "slow", "upload", "stream", "keepalive", "connect", "http2", "websocket", "unix"}

var kindPaths = [numKinds]string{"/", "/slow?ms={ms}", "/upload", "/stream?ms={ms}", "/", "/", "/", "/echo", "/"}

// Kinds are all there are.
func Kinds() []Kind {
	all := make([]Kind, numKinds)
	for i := range all {
		all[i] = Kind(i)
	}
	return all
}

// kept tells whether a client of the kind keeps its connection, so that it needs one port.
func (k Kind) kept() bool { return k == KeepAlive || k == HTTP2 || k == WebSocket }

// String returns the kind in lower case: "new", "slow", "upload", "stream", "keepalive",
// "connect", "http2", "websocket", "unix".
func (k Kind) String() string {
	if k < 0 || k >= numKinds {
		return fmt.Sprintf("kind(%d)", int(k))
	}
	return kindNames[k]
}
