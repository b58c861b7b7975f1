package load

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"
)

// Class is what went wrong with a request. A request that failed has exactly one.
type Class int

// The classes. The zero Class is no failure.
const (
	_ Class = iota
	// Refused: no connection. ECONNREFUSED, of UDP by ICMP; for a unix socket also ENOENT (no
	// such path) and EAGAIN (accept queue full), see connect(2), udp(7), unix(7).
	Refused
	// Reset: ECONNRESET or EPIPE before the first byte of the answer.
	Reset
	// EOF: the connection ended before the first byte of the answer.
	EOF
	// Cut: the connection ended or was reset inside the answer's header or body.
	Cut
	// Timeout: Config.Timeout was over. Of UDP: the datagram or its echo was lost.
	Timeout
	// Status: an answer other than 200, or a call's with another grpc-status than 0.
	Status
	// Body: an answer that isn't the one that belongs to the request: not HTTP,
	// without X-Request-Id, of unknown length, a digest of other bytes, empty
	// stream, or sooner than was asked for (its handler was cut short).
	Body
	// Duplicated: bytes after the end of the answer, or another echo of the request before.
	Duplicated
	// CrossTalk: an answer with another request's X-Request-Id, or the echo of another.
	CrossTalk
	// Closing: a WebSocket's close frame instead of an echo.
	Closing
	// GoneAway: an HTTP/2 stream that the server says it has not looked at (GOAWAY with a
	// lower stream, REFUSED_STREAM). A client might send it again.
	GoneAway
	// Handshake: no agreement about TLS, for example a certificate that is not trusted.
	Handshake
	// ClosedIdle: the server closed or reset a kept connection, or sent something on
	// it, while it was idle, or an answer on it said that it will be closed. No request failed: Result.ClosedIdle counts it, Failures
	// does not.
	ClosedIdle
	// Other: anything else, among it failures of the client's own machine such as
	// no free port or descriptor. Not the server's fault, but not a pass.
	Other
	numClasses
)

var classNames = [numClasses]string{"none", "refused", "reset", "EOF before the answer", "cut in the answer", "timeout",
	"wrong status", "wrong body", "duplicated", "cross-talk", "closing", "not looked at", "TLS handshake", "closed while idle", "other"}

// String returns the class in words.
func (c Class) String() string {
	if c < 0 || c >= numClasses {
		return fmt.Sprintf("class(%d)", int(c))
	}
	return classNames[c]
}

// Failures counts failed requests by [Class].
type Failures [numClasses]int

// Total returns the number of failures of all classes.
func (f Failures) Total() int {
	n := 0
	for _, v := range f {
		n += v
	}
	return n
}

// String lists the classes that occurred: "refused 3, cut in the answer 1", or "none".
func (f Failures) String() string {
	var parts []string
	for c, n := range f {
		if n != 0 {
			parts = append(parts, fmt.Sprintf("%v %d", Class(c), n))
		}
	}
	if parts == nil {
		return "none"
	}
	return strings.Join(parts, ", ")
}

// dialClass classifies an error of connect(2).
func dialClass(network string, err error) Class {
	unix := network == "unix"
	switch {
	case errors.Is(err, syscall.ECONNREFUSED),
		unix && (errors.Is(err, syscall.ENOENT) || errors.Is(err, syscall.EAGAIN)):
		return Refused
	case errors.Is(err, syscall.ECONNRESET):
		return Reset
	case isTimeout(err):
		return Timeout
	}
	return Other
}

// ioClass classifies an error of a read or write; begun says whether any byte of
// the answer had arrived before.
func ioClass(err error, begun bool) Class {
	// TLS makes another of an end that was not announced.
	eof := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
	reset := errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
	switch {
	case errors.Is(err, errHeaderTooLong):
		return Body
	case errors.Is(err, syscall.ECONNREFUSED): // of UDP: by ICMP
		return Refused
	case begun && (eof || reset):
		return Cut
	case reset:
		return Reset
	case eof:
		return EOF
	case isTimeout(err):
		return Timeout
	}
	return Other
}

func isTimeout(err error) bool {
	var ne net.Error
	return errors.As(err, &ne) && ne.Timeout()
}

// Failure is one request that failed, or a connection that was ClosedIdle, between
// two requests.
type Failure struct {
	When      time.Time     // when it failed
	Connected time.Time     // when its connection was made; zero if it was not
	Began     time.Time     // when the client began with it; if ClosedIdle, when it was idle
	Think     time.Duration // how long its connection had been idle before it; 0 of a new one
	Nth       int           // which request on its connection, from 1; 0: there was none
	Kind      Kind
	Class     Class
	ID        string // its X-Request-Id; if ClosedIdle, that of the last one answered
	Local     string // the client's end of its connection; empty if there was none
	Remote    string // the server's end
	Worker    string // X-Worker of the answer, if one came
	Detail    string // what happened, in words
}

// String returns the failure in one line.
func (f Failure) String() string {
	where := "not connected"
	if !f.Connected.IsZero() {
		where = f.Local + " -> " + f.Remote
	}
	if before := f.Before(); before != "" {
		where = before + ", " + where
	}
	if f.Worker != "" {
		where += ", worker " + f.Worker
	}
	return fmt.Sprintf("%s  %v: %v: %s (after %v, id %s, %s)", f.When.Format("15:04:05.000"), f.Kind, f.Class, f.Detail,
		f.When.Sub(f.Began).Round(time.Millisecond), f.ID, where)
}

// Before says in words what there was before on the failure's connection; "" if it was a new
// one.
func (f Failure) Before() string {
	switch {
	case f.Class == ClosedIdle:
		return fmt.Sprintf("after %d requests, idle for %v", f.Nth, f.Think.Round(time.Millisecond))
	case f.Nth > 1:
		return fmt.Sprintf("request %d on its connection, idle for %v before", f.Nth, f.Think.Round(time.Millisecond))
	}
	return ""
}
