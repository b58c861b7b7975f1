// Package home is how workers whose parent has died come to the next one.
//
// A home is a pair of sockets (SOCK_SEQPACKET, unix(7)). The supervisor keeps both ends as
// it keeps the service's listening sockets, a parent has them, and each worker inherits the
// one to report by. A worker whose channel ends has no parent any more: it makes another
// channel, and sends its other end home, with who it is. The parent that is started in the
// place of the dead one reads what has come, and goes on with these workers.
//
// So no channel is stored, the end of a channel is the death of every parent, and a parent
// that a worker has left can't tell it anything any more, whatever becomes of it. When
// nobody keeps the home, there will be no other parent, which the worker sees at once: its
// report can't be sent, or the home ends.
//
// # Format
//
// A message is a JSON object, a [Report], and the descriptors that it names. Fields and
// names that are unknown are skipped, and a field never changes its meaning.
package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"os"
)

// Report is who a worker is. The process that has sent it is the one that it names: the
// kernel says so (SO_PASSCRED, unix(7)).
type Report struct {
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	ID         int    `json:"id"`
	Generation int    `json:"generation"`
	Pid        int    `json:"pid"` // Send fills it in, and Files
	// Recipe is what its generation was made of, as its parent had said.
	Recipe string `json:"recipe,omitempty"`
	// Files are the names of the descriptors that come with it, in their order.
	Files []string `json:"files"`
}

// The descriptors of a report. The first two have to be there. What is not of the kind that it
// has to be is refused here, where nobody is held up by it.
const (
	Channel = "channel" // the other end of the worker's new one
	Pidfd   = "pidfd"   // of the worker (pidfd_open(2))
	Crash   = "crash"   // a memory file (memfd_create(2)): what its Go runtime writes when it dies
	Stdout  = "stdout"  // the read ends of pipes: what it prints
	Stderr  = "stderr"
)

// Arrival is a report that has come home. Its files are the receiver's.
type Arrival struct {
	Report
	Opened map[string]*os.File // by name
}

// Close closes the files.
func (a Arrival) Close() {
	for _, f := range a.Opened {
		f.Close()
	}
}

var (
	// ErrNobody: nobody keeps the home, so that there will be no other parent.
	ErrNobody = errors.New("home: nobody keeps it")
	// ErrReport is wrapped by errors about a message that can't be understood, or is not
	// its sender's.
	ErrReport = errors.New("home: not a worker's report")
)

// maxReport bounds a message, in bytes. What a worker says of itself is far shorter.
const maxReport = 4 << 10

// maxNumber is the highest number of a slot, worker or generation: who counts on from it must
// not come to an end.
const maxNumber = math.MaxInt >> 1

// maxFiles is more descriptors than a report has.
const maxFiles = 16

// decode reads a message of the process sender, without its files.
func decode(b []byte, sender int) (r Report, err error) {
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrReport, err)
	}
	switch {
	case r.Group == "" || r.Slot < 1 || r.ID < 1 || r.Generation < 1 || r.Pid < 1:
		return r, fmt.Errorf("%w: it names no worker: %.200s", ErrReport, b)
	case max(r.Slot, r.ID, r.Generation) > maxNumber:
		return r, fmt.Errorf("%w: a number over %d: %.200s", ErrReport, maxNumber, b)
	case r.Pid != sender:
		return r, fmt.Errorf("%w: process %d says that it is %d", ErrReport, sender, r.Pid)
	}
	return r, nil
}
