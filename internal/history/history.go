// Package history remembers what has happened to a service: every end of a worker, also
// the orderly ones, and every upgrade. It is bounded, and goes from parent to parent.
//
// It is pure: who keeps it says when something has happened.
package history

import "time"

// Bounds of a Log. What does not fit goes: first the dumps, the oldest first, and then
// entries, the oldest first.
const (
	MaxEntries = 512
	MaxBytes   = 1 << 20 // of all texts, and what an entry takes besides
	MaxText    = 64 << 10
	// entryBytes is what an entry takes besides its texts.
	entryBytes = 256
)

// Entry is one thing that has happened: Death, Upgrade or Parent is set. It is versioned by
// adding fields only.
type Entry struct {
	// N counts all entries of the service, from 1, over upgrades, too.
	N       int       `json:"n"`
	Time    time.Time `json:"time"`
	Death   *Death    `json:"death,omitempty"`
	Upgrade *Upgrade  `json:"upgrade,omitempty"`
	Parent  *Parent   `json:"parent,omitempty"`
}

// Parent is the death of a parent, noted by the next one when that begins.
type Parent struct {
	Pid        int       `json:"pid"`
	Generation int       `json:"generation"`
	Started    time.Time `json:"started,omitzero"` // from when it has decided
	Exit       string    `json:"exit,omitempty"`   // "killed by SIGKILL"; "": nobody has told
}

// Death is the end of a worker.
type Death struct {
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	ID         int    `json:"id"`
	Generation int    `json:"generation"`
	Pid        int    `json:"pid,omitempty"` // 0: it could not be started
	// Cause is why, in one word or two: that of a failure, "retire" or "done" if the
	// worker itself wanted to go, or else why the parent let it go, "upgrade", "restart",
	// "scale", "stop" and so on.
	Cause   string `json:"cause"`
	Failure bool   `json:"failure,omitempty"`
	Reason  string `json:"reason,omitempty"` // for people, up to MaxText bytes
	Exit    string `json:"exit,omitempty"`   // "exit status 1", "killed by SIGKILL"
	// Started is when its process was, and Drain when it stopped to accept: from then on
	// until Entry.Time it drained. Zero: it did not.
	Started time.Time `json:"started,omitzero"`
	Drain   time.Time `json:"drain,omitzero"`
	// Connections, as it last said: Served were accepted, MovedIn came from other workers
	// and MovedOut went to them, Cut were closed because its time was up.
	Served   int `json:"served,omitempty"`
	MovedIn  int `json:"movedIn,omitempty"`
	MovedOut int `json:"movedOut,omitempty"`
	Cut      int `json:"cut,omitempty"`
	// It did not go in time, and was sent SIGTERM, and SIGKILL.
	Terminated bool `json:"terminated,omitempty"`
	Killed     bool `json:"killed,omitempty"`
	// Dump is the Go runtime's report of a crash, up to MaxText bytes, and DumpCut how many
	// are missing.
	Dump    string `json:"dump,omitempty"`
	DumpCut int    `json:"dumpCut,omitempty"`
}

// Upgrade is how one ended.
type Upgrade struct {
	Generation int       `json:"generation"` // that it was to lead to
	Began      time.Time `json:"began,omitzero"`
	Result     string    `json:"result"` // as in control.Result
	Reason     string    `json:"reason,omitempty"`
	Output     string    `json:"output,omitempty"` // an excerpt of what the new program printed
}

// bounded is e with texts that are not too long, in copies that nobody else has.
func (e Entry) bounded() Entry {
	if e.Death != nil {
		d := *e.Death
		d.Reason = d.Reason[:min(len(d.Reason), MaxText)]
		d.Exit = d.Exit[:min(len(d.Exit), MaxText)]
		d.DumpCut += max(0, len(d.Dump)-MaxText)
		d.Dump = d.Dump[:min(len(d.Dump), MaxText)]
		e.Death = &d
	}
	if e.Upgrade != nil {
		u := *e.Upgrade
		u.Reason = u.Reason[:min(len(u.Reason), MaxText)]
		u.Output = u.Output[:min(len(u.Output), MaxText)]
		e.Upgrade = &u
	}
	if e.Parent != nil {
		p := *e.Parent
		p.Exit = p.Exit[:min(len(p.Exit), MaxText)]
		e.Parent = &p
	}
	return e
}

// size is how many bytes of MaxBytes it takes.
func (e Entry) size() int {
	n := entryBytes
	if d := e.Death; d != nil {
		n += len(d.Group) + len(d.Cause) + len(d.Reason) + len(d.Exit) + len(d.Dump)
	}
	if u := e.Upgrade; u != nil {
		n += len(u.Result) + len(u.Reason) + len(u.Output)
	}
	if p := e.Parent; p != nil {
		n += len(p.Exit)
	}
	return n
}
