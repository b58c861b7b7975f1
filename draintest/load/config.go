package load

import (
	"cmp"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"
)

// MaxRate is the greatest rate, in requests per second, of all clients together that
// connect for every request. Each such request needs an ephemeral port, of which Linux
// has 28,232 unless told otherwise, and a closed connection may keep its port for 60 s.
//
// MaxKeptRate is that of the clients that keep their connection ([KeepAlive], [HTTP2],
// [WebSocket], [GRPC], [TCP], [UDP]), which need a port each.
const (
	MaxRate     = 2000
	MaxKeptRate = 100_000
)

const minRate = 0.001 // requests per second; far less would overflow the interval

// Config says what a load is. Only Addr is needed.
type Config struct {
	// Addr is "host:port" or "unix:/path". A host name is resolved once, to one
	// address, since a client that goes on to the next address has retried.
	Addr string

	// Unix is the path of a unix socket, for clients of that kind.
	Unix string

	// Addrs are where the clients of a kind connect to, in the form of Addr, if not to that. UDP
	// needs a "host:port".
	Addrs map[Kind]string

	// TLS, if set, makes all clients speak TLS, but for those of the kinds Connect, Unix, TCP and
	// UDP. ServerName is by default that of Host, and NextProtos is the client's own.
	TLS *tls.Config

	// Clients is how many clients there are of each kind. Default: one New, Slow, Upload
	// and Stream.
	Clients map[Kind]int

	// Rate is how many requests each client starts per second. Default 50.
	// All clients together that keep their connection may not exceed MaxKeptRate, all
	// others MaxRate.
	Rate float64

	// Think are times between one request of a client that keeps its connection (KeepAlive,
	// HTTP2, WebSocket, GRPC, TCP, UDP) and the next, from start to start; clients take them in
	// turn. Default: as Rate says.
	Think []time.Duration

	// Timeout bounds each request, from its connect to the end of its answer.
	// Default 30 s.
	Timeout time.Duration

	// WaitReady is for how long Start may wait until every kind has had a good
	// answer. These first requests are repeated, and are not part of the result.
	// Default 0: the load begins at once.
	WaitReady time.Duration

	SlowMS   int // milliseconds a Slow request asks for. Default 300
	StreamMS int // milliseconds a Stream request asks for. Default 300

	UploadBytes  int // size of an Upload's body in bytes. Default 64 KiB
	UploadChunks int // pieces that the body is sent in. Default 10
	UploadMS     int // milliseconds from the first piece to the last. Default 300

	// MaxRequests ends the load after so many requests, all kinds together.
	// Default 0: it goes on until Stop.
	MaxRequests int

	// MaxInFlight is how many requests one client may have under way, other than a KeepAlive,
	// WebSocket, TCP or UDP one. When it is reached, the client waits, and the wait counts as
	// latency and shows in Result.Late. Default 256.
	MaxInFlight int

	// Path is what clients of a kind ask for, if it is not what the kind says: a path
	// that may have a query, in which each "{ms}" stands for SlowMS or StreamMS.
	Path map[Kind]string

	// Host is the value of the Host header. Default: Addr's (or Addrs') host and port, or
	// "localhost" of a unix socket.
	Host string

	// Status is what all answers must have, but for those of GRPC. Default 200.
	Status int

	// Plain is for a server that does not know of this package. An answer need not carry
	// X-Request-Id, but must not carry another request's; those without are Unmatched,
	// and all of a kind are to be or none. An Upload's answer need not tell what came.
	// A Slow or Stream request may end early if there is no "{ms}" in its path. An echo may
	// have more in it than what was sent, and lines or datagrams that are none may come.
	Plain bool

	// WorkerHeader is the header of an answer that says which process it is from.
	// Default X-Worker.
	WorkerHeader string

	// Observe, if set, is called with every request when it has ended, and with every
	// connection that is ClosedIdle: one call at a time, which should not take long.
	Observe func(Request)

	// Header is added to each request, of a WebSocket the first one. It may not contain what the client sets
	// itself: Host, Connection, Content-Length, Transfer-Encoding, X-Request-Id. (GRPC sets
	// Content-Type and Te, too.)
	Header http.Header
}

var ownHeaders = []string{"Host", "Connection", "Content-Length", "Transfer-Encoding", "X-Request-Id"}

// interval is the time between two requests of the nth client of a kind, from 0.
func (c Config) interval(k Kind, nth int) time.Duration {
	if k.kept() && len(c.Think) > 0 {
		return c.Think[nth%len(c.Think)]
	}
	return time.Duration(float64(time.Second) / c.Rate)
}

// rate is how many requests a second all clients of a kind make together.
func (c Config) rate(k Kind) (sum float64) {
	if !k.kept() || len(c.Think) == 0 {
		return c.Rate * float64(c.Clients[k])
	}
	for i := range c.Clients[k] {
		sum += float64(time.Second) / float64(c.interval(k, i))
	}
	return sum
}

// withDefaults returns a copy of c, sharing nothing with it, in which what was
// left out is filled in.
func (c Config) withDefaults() Config {
	if len(c.Clients) == 0 {
		c.Clients = map[Kind]int{New: 1, Slow: 1, Upload: 1, Stream: 1}
	} else {
		c.Clients = maps.Clone(c.Clients)
	}
	c.Addrs = maps.Clone(c.Addrs)
	c.Header = c.Header.Clone()
	c.Path = maps.Clone(c.Path)
	if c.Path == nil {
		c.Path = map[Kind]string{}
	}
	for kind, path := range kindPaths {
		c.Path[Kind(kind)] = cmp.Or(c.Path[Kind(kind)], path)
	}
	c.WorkerHeader = cmp.Or(c.WorkerHeader, "X-Worker")
	c.Status = cmp.Or(c.Status, http.StatusOK)
	c.Rate = cmp.Or(c.Rate, 50)
	c.Timeout = cmp.Or(c.Timeout, 30*time.Second)
	c.SlowMS = cmp.Or(c.SlowMS, 300)
	c.StreamMS = cmp.Or(c.StreamMS, 300)
	c.UploadBytes = cmp.Or(c.UploadBytes, 64<<10)
	c.UploadChunks = cmp.Or(c.UploadChunks, 10)
	c.UploadMS = cmp.Or(c.UploadMS, 300)
	c.MaxInFlight = cmp.Or(c.MaxInFlight, 256)
	return c
}

// Validate reports everything that is wrong with the configuration, each fault
// naming its field. It does not resolve or dial Addr.
func (c Config) Validate() error {
	c = c.withDefaults()
	var errs []error
	fault := func(format string, args ...any) {
		errs = append(errs, fmt.Errorf("load: "+format, args...))
	}
	if _, _, err := splitAddr(c.Addr); err != nil {
		fault("Addr: %w", err)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Addrs)) {
		if k < 0 || k >= numKinds {
			fault("Addrs: no such kind: %v", k)
		} else if _, _, err := splitAddr(c.Addrs[k]); err != nil {
			fault("Addrs: of kind %v: %w", k, err)
		} else if k == Unix {
			fault("Addrs: kind %v has Config.Unix", k)
		}
	}
	if c.Clients[UDP] > 0 && strings.HasPrefix(c.addr(UDP), "unix:") {
		fault(`Addrs: of kind udp: %q: want "host:port"`, c.addr(UDP))
	}
	clients := 0
	for _, k := range slices.Sorted(maps.Keys(c.Clients)) {
		if k < 0 || k >= numKinds {
			fault("Clients: no such kind: %v", k)
		}
		if n := c.Clients[k]; n < 0 {
			fault("Clients: %d of kind %v: can't be negative", n, k)
		} else {
			clients += n
		}
	}
	if clients == 0 {
		fault("Clients: none: a load without clients proves nothing")
	}
	thinks := !slices.ContainsFunc(c.Think, func(d time.Duration) bool { return d <= 0 })
	if !thinks {
		fault("Think: %v: each must be more than 0", c.Think)
	}
	if !(c.Rate >= minRate) { // also NaN
		fault("Rate: %v requests/s: must be at least %v", c.Rate, minRate)
	} else if thinks {
		var n, kept int
		var rate, keptRate float64
		for k, clients := range c.Clients {
			if k.kept() {
				kept, keptRate = kept+clients, keptRate+c.rate(k)
			} else {
				n, rate = n+clients, rate+c.rate(k)
			}
		}
		if keptRate > MaxKeptRate {
			fault("Rate: %d clients with kept connections make %v/s: at most %d/s", kept, keptRate, MaxKeptRate)
		}
		if rate > MaxRate {
			fault("Rate: %d clients with %v requests/s make %v/s: at most %d/s, or ephemeral ports run out",
				n, c.Rate, rate, MaxRate)
		}
	}
	if c.Clients[Unix] > 0 && c.Unix == "" {
		fault("Unix: no path, and there are clients of that kind")
	}
	for _, f := range []struct {
		name string
		v    int
		min  int
	}{
		{"SlowMS", c.SlowMS, 1}, {"StreamMS", c.StreamMS, 1}, {"UploadMS", c.UploadMS, 1},
		{"UploadBytes", c.UploadBytes, 1}, {"UploadChunks", c.UploadChunks, 1},
		{"MaxRequests", c.MaxRequests, 0}, {"MaxInFlight", c.MaxInFlight, 1},
	} {
		if f.v < f.min {
			fault("%s: %d: must be at least %d", f.name, f.v, f.min)
		}
	}
	if c.UploadChunks > c.UploadBytes {
		fault("UploadChunks: %d pieces of a body of %d bytes: at most one a byte", c.UploadChunks, c.UploadBytes)
	}
	longest := time.Duration(max(c.SlowMS, c.StreamMS, c.UploadMS)) * time.Millisecond
	if c.Timeout <= longest {
		fault("Timeout: %v: must be longer than the longest request (%v)", c.Timeout, longest)
	}
	if c.WaitReady != 0 && c.WaitReady <= longest {
		fault("WaitReady: %v: must be longer than the longest request (%v)", c.WaitReady, longest)
	}
	for _, k := range slices.Sorted(maps.Keys(c.Path)) {
		if k < 0 || k >= numKinds {
			fault("Path: no such kind: %v", k)
		} else if p := c.Path[k]; !isPath(p) {
			fault("Path: %q of kind %v: want a path such as /items?all=1, with escapes where URLs have them", p, k)
		}
	}
	if u, err := url.Parse("http://" + c.Host); c.Host != "" && (err != nil || u.Host != c.Host) {
		fault(`Host: %q: want "host" or "host:port"`, c.Host)
	}
	if c.Status < 200 || c.Status > 599 {
		fault("Status: %d: must be that of a final answer, 200 to 599", c.Status)
	}
	if strings.ContainsFunc(c.WorkerHeader, func(r rune) bool { return r <= ' ' || r >= 0x7f || r == ':' }) {
		fault("WorkerHeader: %q: not the name of a header", c.WorkerHeader)
	}
	for name := range c.Header {
		if slices.Contains(ownHeaders, http.CanonicalHeaderKey(name)) {
			fault("Header: %s is set by the client itself", name)
		}
	}
	return errors.Join(errs...)
}

// isPath tells whether p can stand in a request line, RFC 9112, section 3.2.1.
func isPath(p string) bool {
	u, err := url.ParseRequestURI(strings.ReplaceAll(p, "{ms}", "0"))
	return err == nil && u.Scheme == "" && strings.HasPrefix(p, "/") && !strings.ContainsFunc(p, func(r rune) bool {
		return r <= ' ' || r >= 0x7f || r == '#'
	})
}

// path is what a request of that kind asks for.
func (c Config) path(k Kind) string {
	ms := c.SlowMS
	if k == Stream {
		ms = c.StreamMS
	}
	return strings.ReplaceAll(c.Path[k], "{ms}", strconv.Itoa(ms))
}

// timed tells whether the server was told how long its answer is to take.
func (c Config) timed(k Kind) bool { return !c.Plain || strings.Contains(c.Path[k], "{ms}") }

// addr is where clients of a kind connect to.
func (c Config) addr(k Kind) string {
	if k == Unix {
		return "unix:" + c.Unix
	}
	return cmp.Or(c.Addrs[k], c.Addr)
}

// splitAddr takes a Config.Addr apart into what net.Dial wants.
func splitAddr(addr string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		if path == "" {
			return "", "", errors.New("unix: without a path")
		}
		return "unix", path, nil
	}
	host, port, err := net.SplitHostPort(addr)
	if err != nil || host == "" || port == "" || port == "0" {
		return "", "", fmt.Errorf(`%q: want "host:port" or "unix:/path"`, addr)
	}
	return "tcp", addr, nil
}
