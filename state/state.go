// Package state shares a value whose truth lies elsewhere, in a file, a database, a
// Redis, with all processes of a service: one of them, the agent, looks there, and all
// others have what it has found, in their own memory.
//
//	// in the agent
//	certs, err := state.Serve(w.Messages(), "certs", state.Dir("/etc/tls"), nil)
//
//	// in every worker
//	certs, err := state.Follow[map[string][]byte](ctx,
//		state.From(w.Messages(), message.Slot("agent", 1), "certs"), state.Options[map[string][]byte]{})
//	certs.Get().Value["tls.key"] // now, without leaving the process
//
// Follow returns when the value is there: call it before the worker is ready. From then
// on the worker asks the agent every [DefaultBeat] whether that is still the value, and
// at once when the agent has told it that there is another. So it also follows while it
// drains, and over replacements of the agent and of the parent: whoever answers is the
// slot's process by then.
//
// The newest value wins, and those between may be skipped. What is newer is told by when
// the agent began to look at the truth, on a clock that all processes of a machine
// share: an answer that comes late, or of an agent that was replaced, changes nothing.
//
// While the truth can't be seen, Get goes on with what it has, says how old that is
// (Reading.Age) and why (Reading.Err). An agent that is started in such a time takes
// over what the workers remember. Only when everything is new, as at the first start or
// in an upgrade before its commit, there is nobody who remembers, and Follow fails.
//
// Without a parent a process is its own agent: it follows the *Server itself.
package state

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/message"
)

const (
	// MaxValue is the most bytes of a value, as JSON. A []byte, as of File, is base64
	// there: four bytes for three.
	MaxValue = message.MaxData - 4096
	// MaxVersion is the most bytes of a version.
	MaxVersion = 256
	// MaxName is the most bytes of a name.
	MaxName = 128
	// DefaultBeat is how often a Value asks whether it is still right.
	DefaultBeat = 2 * time.Second
	// DefaultWait is how long Follow waits for a first value.
	DefaultWait = 10 * time.Second
)

var (
	// ErrConfig is wrapped by errors about arguments.
	ErrConfig = errors.New("state: bad configuration")
	// ErrNone is wrapped by Follow's error when there is no value in time, and is a
	// Reading's Err while there is none at all.
	ErrNone = errors.New("state: there is no value")
	// ErrSource is wrapped by a Reading's Err when the truth can't be seen at present.
	ErrSource = errors.New("state: the source fails")
	// ErrDecode is wrapped by a Reading's Err when there is a newer value, which can't
	// be decoded.
	ErrDecode = errors.New("state: a newer value can't be used")
	// ErrAgent is wrapped by a Reading's Err when the agent could not be asked.
	ErrAgent = errors.New("state: the agent does not answer")
)

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
}

// checkName says what is wrong with a value's name.
func checkName(name string) error {
	switch {
	case name == "":
		return bad("the value has no name")
	case len(name) > MaxName:
		return bad("name %.20q…: %d bytes, the most is %d", name, len(name), MaxName)
	case strings.ContainsAny(name, "\x00\n"):
		return bad("name %q: must not contain line ends", name)
	}
	return nil
}

// The types of the two messages about a value: a follower's request to the agent, and
// the agent's word to a follower that there is something new.
func typeGet(name string) string { return "state get " + name }
func typeNew(name string) string { return "state new " + name }

// entry is a value as it goes from process to process. Fields are only ever added, to
// this as to the next two.
type entry struct {
	At      int64           `json:"at,omitempty"` // when it was looked at, see now
	Version string          `json:"version,omitempty"`
	Value   json.RawMessage `json:"value,omitempty"`
}

// now is the time in an entry, in ns: by a clock that all processes of this machine share and
// that nobody sets.
func now() int64 { return int64(clock.SinceBoot()) }

// request asks for a value.
type request struct {
	Version string `json:"version,omitempty"` // what the follower has; "": nothing
	Offer   *entry `json:"offer,omitempty"`   // the same as a whole, for an agent that has nothing
}

// answer is a value, without its Value if the follower has that version.
type answer struct {
	entry
	None bool   `json:"none,omitempty"` // there is nothing yet
	Err  string `json:"err,omitempty"`  // why the source can't be looked at; "": it can
}
