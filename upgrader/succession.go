package upgrader

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// The succession is the conversation between a process and the one that is to
// take its place, over a socket pair that exists for one upgrade. Its framing is
// package wire's; wire/PROTOCOL.md has it in words.
//
//	old → new  sockets   names and addresses, and files' names, with the descriptors
//	new → old  hello     its version of this format
//	new → old  ward      a process that is to be drained if this fails
//	new → old  prepared  it could serve
//	new → old  failed    it gives up, and why
//	old → new  legacy    descriptors of what the old one had, any number of times
//	old → new  commit    the rest: state; the old one has stopped deciding
//	new → old  ack       the new one decides
//	old → new  named     the supervisor knows of the new one; it will hear no more
//
// Wards may follow as long as the old one has not let go. Version 2 added ward; named
// is one that an older version skips. The process speaks the formats from
// successionMin to successionVersion, which are variables for the tests.
var successionMin, successionVersion = 1, 2

const versionWards = 2

// maxPerMessage leaves room below wire.MaxFiles.
const maxPerMessage = 200

// message is any line of the succession.
type message struct {
	Cmd string `json:"cmd"`
	// Version is the newest format that the sender speaks, MinVersion the
	// oldest that it understands.
	Version    int `json:"v,omitempty"`
	MinVersion int `json:"min,omitempty"`

	Generation int             `json:"generation,omitempty"` // sockets: of the receiver
	Sockets    []entry         `json:"sockets,omitempty"`    // sockets: one descriptor each
	More       bool            `json:"more,omitempty"`       // sockets: another such message follows
	Reason     string          `json:"reason,omitempty"`     // failed
	Files      []string        `json:"files,omitempty"`      // legacy: one descriptor each
	State      json.RawMessage `json:"state,omitempty"`      // commit

	// ward: a pidfd and so many read ends
	Pid       int   `json:"pid,omitempty"`
	Signal    int   `json:"signal,omitempty"`
	TimeoutMS int64 `json:"timeout,omitempty"`
	Output    int   `json:"output,omitempty"`
}

// entry is one socket, or a file, whose network is listen.KindFile and which has no
// address. A program that does not know a network refuses the descriptor, before
// anything has changed.
type entry struct {
	listen.Spec
	Adopted bool `json:"adopted,omitempty"` // from a supervisor
}

const (
	cmdSockets  = "sockets"
	cmdHello    = "hello"
	cmdWard     = "ward"
	cmdPrepared = "prepared"
	cmdFailed   = "failed"
	cmdLegacy   = "legacy"
	cmdCommit   = "commit"
	cmdAck      = "ack"
	cmdNamed    = "named"
)

// errVersion is wrapped where two formats have nothing in common.
var errVersion = errors.New("no common version of the succession format")

func checkVersion(m message) error {
	if m.MinVersion > successionVersion {
		return fmt.Errorf("%w: the other side speaks %d to %d, this one %d",
			errVersion, m.MinVersion, m.Version, successionVersion)
	}
	return nil
}

// receive reads one message. Unknown commands are for the caller to skip.
func receive(c *wire.Conn) (message, error) {
	line, err := c.Read()
	if err != nil {
		return message{}, err
	}
	var m message
	if err := json.Unmarshal(line, &m); err != nil {
		return message{}, fmt.Errorf("succession: %w", err)
	}
	return m, nil
}

// NamedFile is a descriptor under a name that its sender and its receiver agree
// on.
type NamedFile struct {
	Name string
	File *os.File
}

// Legacy is what a process hands to its successor at the commit.
type Legacy struct {
	// Files are descriptors. On the side that gives they stay the giver's, who
	// may need them again when the successor dies; on the side that receives
	// they are the receiver's.
	Files []NamedFile
	// State is anything that can't be learned from Files.
	State json.RawMessage
}

// Close closes the files.
func (l Legacy) Close() {
	for _, f := range l.Files {
		f.File.Close()
	}
}

// sendLegacy sends all of l; the last message is the commit.
func sendLegacy(c *wire.Conn, l Legacy) error {
	for files := l.Files; len(files) > 0; {
		n := min(len(files), maxPerMessage)
		m := message{Cmd: cmdLegacy}
		fds := make([]*os.File, n)
		for i, f := range files[:n] {
			m.Files = append(m.Files, f.Name)
			fds[i] = f.File
		}
		if err := c.Send(m, fds...); err != nil {
			return err
		}
		files = files[n:]
	}
	if len(l.State) <= maxInline {
		return c.Send(message{Cmd: cmdCommit, State: l.State})
	}
	f, err := launch.MemoryFile(stateFile)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Write(l.State); err != nil {
		return err
	}
	return c.Send(message{Cmd: cmdCommit, Files: []string{stateFile}}, f)
}

// A state that is larger goes in a file: a line has a cap (wire.MaxLine), and an upgrade
// must not fail for what many workers have to say.
const (
	maxInline = 64 << 10 // bytes
	stateFile = "state"
)

// receiveState reads a state that is in a file, the first of n.
func receiveState(c *wire.Conn, n int) (json.RawMessage, error) {
	files, err := c.TakeFiles(n)
	if err != nil {
		return nil, fmt.Errorf("succession: %d descriptors announced: %w", n, err)
	}
	defer closeAll(files)
	b, err := io.ReadAll(io.NewSectionReader(files[0], 0, math.MaxInt64)) // not from where it was written to
	if err == nil && !json.Valid(b) {
		err = errors.New("it is no JSON")
	}
	if err != nil {
		return nil, fmt.Errorf("succession: the state in descriptor %q: %w", stateFile, err)
	}
	return b, nil
}

// receiveLegacy reads up to and including the commit. Without a commit it
// returns an error and nothing is left open.
func receiveLegacy(c *wire.Conn) (l Legacy, err error) {
	defer func() {
		if err != nil {
			l.Close()
			l = Legacy{}
		}
	}()
	for {
		m, err := receive(c)
		if err != nil {
			return l, err
		}
		switch m.Cmd {
		case cmdLegacy:
			files, err := c.TakeFiles(len(m.Files))
			if err != nil {
				return l, fmt.Errorf("succession: %d descriptors announced: %w", len(m.Files), err)
			}
			for i, f := range files {
				l.Files = append(l.Files, NamedFile{m.Files[i], f})
			}
		case cmdCommit:
			l.State = m.State
			if len(m.Files) > 0 {
				l.State, err = receiveState(c, len(m.Files))
			}
			return l, err
		}
	}
}
