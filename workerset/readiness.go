package workerset

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Readiness is how it is known that a worker could serve.
//
// The zero value is: a worker of this binary says so on its channel; another
// program says READY=1 (sd_notify(3)) or has been alive for [AliveFor], whichever is
// first, unless it speaks on the channel as package worker does. A worker of Node's
// cluster has to listen, and one that is offered its sockets to have taken them; time
// does not count for these.
type Readiness struct {
	// By names the way.
	By ReadyBy
	// Path is what is asked for with ReadyHTTP: any status below 400 is an answer.
	Path string
	// After is the time with ReadyDelay.
	After time.Duration
}

// ReadyBy is a way to know that a worker is ready.
type ReadyBy int

const (
	ReadyDefault ReadyBy = iota
	// ReadyNotify: it says READY=1 to its NOTIFY_SOCKET.
	ReadyNotify
	// ReadyChannel: it says on its channel that it is ready, as package worker
	// does, or sends the JSON text "ready" (Node: process.send('ready')).
	ReadyChannel
	// ReadyHTTP: this very worker answers a GET request.
	ReadyHTTP
	// ReadyDelay: it has been alive for a time.
	ReadyDelay
)

// AliveFor is how long a program that says nothing has to have been alive.
const AliveFor = time.Second

// ParseReadiness reads "notify", "channel", "http:PATH", a duration such as
// "200ms", or "" and "auto" for the default.
func ParseReadiness(s string) (Readiness, error) {
	kind, path, _ := strings.Cut(s, ":")
	switch {
	case s == "", s == "auto":
		return Readiness{}, nil
	case s == "notify":
		return Readiness{By: ReadyNotify}, nil
	case s == "channel":
		return Readiness{By: ReadyChannel}, nil
	case kind == "http":
		r := Readiness{By: ReadyHTTP, Path: path}
		return r, r.Validate()
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return Readiness{}, fmt.Errorf("readiness %q: use notify, channel, http:/PATH, or a time such as 200ms", s)
	}
	return Readiness{By: ReadyDelay, After: d}, nil
}

// Validate says what can't work.
func (r Readiness) Validate() error {
	switch {
	case r.By < ReadyDefault || r.By > ReadyDelay:
		return fmt.Errorf("readiness %d: unknown", r.By)
	case r.By == ReadyHTTP && !strings.HasPrefix(r.Path, "/"):
		return fmt.Errorf("readiness http:%s: the path has to begin with /", r.Path)
	case r.By == ReadyHTTP && strings.ContainsFunc(r.Path, func(c rune) bool { return c <= ' ' || c == 0x7f }):
		return fmt.Errorf("readiness http:%q: the path contains a space or a control character", r.Path)
	case r.After < 0:
		return errors.New("readiness: a negative delay")
	}
	return nil
}

// String is what ParseReadiness reads.
func (r Readiness) String() string {
	switch r.By {
	case ReadyNotify:
		return "notify"
	case ReadyChannel:
		return "channel"
	case ReadyHTTP:
		return "http:" + r.Path
	case ReadyDelay:
		return r.After.String()
	}
	return "auto"
}
