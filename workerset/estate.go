package workerset

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// Estate is a set on its way to another process: descriptors, which are all that
// is needed to take the workers over, and what the workers can't know.
type Estate struct {
	// Files are named KIND:GROUP/SLOT/ID/GENERATION/PID, KIND being channel or
	// pidfd. A worker without a channel has lost it, and drains.
	Files map[string]*os.File
	State json.RawMessage
}

// Close closes the files.
func (e Estate) Close() {
	for _, f := range e.Files {
		f.Close()
	}
}

const (
	kindChannel = "channel:"
	kindPidfd   = "pidfd:"
)

// estateState is versioned by adding fields only. All of it may be missing.
type estateState struct {
	Version int                    `json:"v"`
	Groups  map[string]groupState  `json:"groups"`
	Workers map[string]workerState `json:"workers,omitempty"` // by identity
	Residue map[string][]byte      `json:"residue,omitempty"` // by identity: the part of a line that was read
}

type groupState struct {
	Count      int `json:"count"`
	Configured int `json:"configured"`
	Restarts   int `json:"restarts"`
	Failures   int `json:"failures"`
}

// workerState is what was decided about a worker and is counted already.
type workerState struct {
	Ready      time.Time  `json:"ready,omitzero"`
	Cause      wire.Cause `json:"cause,omitempty"`
	Reason     string     `json:"reason,omitempty"`
	Blamed     time.Time  `json:"blamed,omitzero"`
	Dismissed  bool       `json:"dismissed,omitempty"`
	Terminated bool       `json:"terminated,omitempty"`
	Killed     bool       `json:"killed,omitempty"`
}

// maxResidue bounds what is handed on of an unfinished line. A worker that is in
// the middle of a longer one loses its channel, and drains.
const maxResidue = 64 << 10

// Yield stops deciding and returns copies of everything that another process
// needs to decide instead. From then on the set does nothing, until Resume or
// Abandon; a Stop or Kill that comes meanwhile is carried out by Resume. The files
// are the caller's to close. With an error the set goes on.
func (s *Set) Yield(ctx context.Context) (Estate, error) {
	e := Estate{Files: map[string]*os.File{}}
	var err error
	derr := s.do(ctx, func() {
		switch {
		case s.stopping:
			err = ErrEnded
		case s.yielded:
			err = errors.New("workerset: given away already")
		default:
			if err = s.yield(&e); err != nil {
				s.resume()
			}
		}
	})
	if err = errors.Join(derr, err); err != nil {
		e.Close()
		return Estate{}, err
	}
	return e, nil
}

func (s *Set) yield(e *Estate) error {
	s.yielded, s.yieldedAt = true, time.Now()
	st := estateState{
		Version: 1, Groups: map[string]groupState{},
		Workers: map[string]workerState{}, Residue: map[string][]byte{},
	}
	for _, g := range s.groups {
		if !g.dropped {
			st.Groups[g.Name] = groupState{Count: g.Count, Configured: g.configured, Restarts: g.restarts, Failures: g.failures}
		}
		for _, in := range g.members {
			st.Workers[in.identity()] = workerState{
				Ready: in.readyAt, Cause: in.cause, Reason: in.reason, Blamed: in.blamedAt,
				Dismissed: in.dismissed, Terminated: in.terminated, Killed: in.killed,
			}
			if err := s.give(in, e, &st); err != nil {
				return fmt.Errorf("give worker %s away: %w", in.name(), err)
			}
		}
	}
	var err error
	e.State, err = json.Marshal(st)
	return err
}

// give puts one worker into the estate. One whose channel can't be read any more
// goes without: whoever gets it has to know that it is there, and to end it.
func (s *Set) give(in *incarnation, e *Estate, st *estateState) error {
	pidfd, err := dupFile(in.proc.Pidfd(), kindPidfd+in.identity())
	if err != nil {
		return err
	}
	e.Files[pidfd.Name()] = pidfd
	if in.conn == nil {
		return nil
	}
	res, err := in.conn.Halt()
	if err != nil {
		return nil // it has been closed, or failed
	}
	in.residue = &res
	s.quiet(in)
	if len(res.Bytes) > maxResidue || len(res.Files) > 0 {
		return nil
	}
	if len(res.Bytes) > 0 {
		st.Residue[in.identity()] = res.Bytes
	}
	channel, err := dupFile(in.conn, kindChannel+in.identity())
	if err != nil {
		return err
	}
	e.Files[channel.Name()] = channel
	return nil
}

// quiet waits for the reader of a channel that has been halted, so that Resume
// can start another. The line that it may still have is held.
func (s *Set) quiet(in *incarnation) {
	for {
		select {
		case ev := <-s.events:
			s.handle(ev)
		case <-in.reader:
			return
		}
	}
}

// Resume decides again after a Yield: whoever got the estate is dead. What
// happened meanwhile is made up for, and the workers are asked what they do.
func (s *Set) Resume() {
	_ = s.do(context.Background(), func() {
		if s.yielded {
			s.resume()
		}
	})
}

func (s *Set) resume() {
	s.yielded = false
	away := time.Since(s.yieldedAt)
	for _, g := range s.groups {
		for _, in := range g.members {
			if !in.deadline.IsZero() { // nobody looked whether it was in time
				in.deadline = in.deadline.Add(away)
			}
		}
	}
	held := s.held
	s.held = nil
	for _, ev := range held { // what was read before the channels were halted
		s.handle(ev)
	}
	for _, g := range s.groups {
		for _, in := range g.members {
			if in.residue != nil {
				in.torn = tear(in.residue.Bytes)
				in.conn.Unhalt(*in.residue)
				in.residue = nil
				s.read(in)
			}
			in.tell(wire.Order{Cmd: wire.CmdWho})
		}
	}
	if s.stopping {
		s.end(s.ending)
	}
}

// tear says which line, counted from 1, may be broken when reading goes on with b:
// the one that another parent may have begun to read.
func tear(b []byte) int {
	n := 1
	for line := range bytes.Lines(b) {
		if len(line) > 1 && line[len(line)-1] == '\n' { // a reader skips empty ones
			n++
		}
	}
	return n
}

// Abandon ends Run without a word to the workers: they belong to another process
// now.
func (s *Set) Abandon() {
	_ = s.do(context.Background(), func() { s.over = true })
}

// Commit ends a trial: the workers that stand by begin to serve, the rest of the
// count is started, and the workers of the estate, if there are any, are taken
// over and then replaced, Surge at a time. It takes ownership of the estate's
// files. With an error, ErrEnded or ctx's, they are closed, and library workers
// drain.
func (s *Set) Commit(ctx context.Context, e Estate) error {
	err := s.do(ctx, func() {
		s.committed = true
		// These first: somebody is to accept, the others do anyway.
		for _, g := range s.groups {
			for _, in := range g.members {
				s.apply(in, lifecycle.Commit)
			}
		}
		s.adopt(e)
		if s.stopping {
			s.end(s.ending)
		}
	})
	if err != nil {
		e.Close()
	}
	return err
}

// adopt takes an estate's workers over. What can't be understood is closed: a
// library worker whose channel ends drains and exits.
func (s *Set) adopt(e Estate) {
	var st estateState
	if len(e.State) > 0 {
		if err := json.Unmarshal(e.State, &st); err != nil {
			s.log.Warn("the history of the previous parent can't be read", "error", err)
		}
	}
	for _, g := range s.groups {
		gs, ok := st.Groups[g.Name]
		if !ok {
			continue
		}
		g.restarts += gs.Restarts
		g.failures += gs.Failures
		if g.configured == gs.Configured && gs.Count > 0 {
			g.Count = gs.Count // scaled at run time, and nobody has said otherwise since
		}
	}
	for _, name := range slices.Sorted(maps.Keys(e.Files)) {
		identity, ok := strings.CutPrefix(name, kindPidfd)
		if !ok {
			continue
		}
		pidfd, channel := e.Files[name], e.Files[kindChannel+identity]
		delete(e.Files, name)
		delete(e.Files, kindChannel+identity)
		in, err := s.adoptOne(identity, pidfd, channel, st.Residue[identity], st.Workers[identity])
		if err != nil {
			s.log.Error("a worker of the previous parent could not be taken over, it drains", "worker", identity, "error", err)
			continue
		}
		in.group.members = append(in.group.members, in)
		s.follow(in)
		s.apply(in, lifecycle.Adopted)
		if in.deaf {
			s.apply(in, lifecycle.Lost)
		}
	}
	for name := range e.Files {
		s.log.Warn("a descriptor of the previous parent belongs to nothing, it is closed", "name", name)
	}
	e.Close()
}

// adoptOne makes an incarnation of descriptors, which it owns. channel may be nil.
func (s *Set) adoptOne(identity string, pidfd, channel *os.File, residue []byte, ws workerState) (*incarnation, error) {
	name, n, err := parseIdentity(identity)
	if err != nil {
		pidfd.Close()
		if channel != nil {
			channel.Close()
		}
		return nil, err
	}
	now := time.Now()
	in := &incarnation{
		key: s.nextKey(), slot: n[0], id: n[1], generation: n[2],
		state: lifecycle.Spawning, since: now, readyAt: ws.Ready, adopted: true, stale: true, torn: tear(residue),
		cause: ws.Cause, reason: ws.Reason, blamedAt: ws.Blamed,
		dismissed: ws.Dismissed, terminated: ws.Terminated, killed: ws.Killed,
	}
	if in.readyAt.IsZero() {
		// Until it says something else it counts as one that serves.
		in.readyAt = now.Add(-resetAfter)
	}
	if channel != nil {
		if in.conn, err = wire.Resume(channel, wire.Residue{Bytes: residue}); err != nil {
			s.log.Error("the channel of a worker can't be used", "worker", identity, "error", err)
		}
	}
	in.deaf = in.conn == nil
	if in.proc, err = launch.Adopt(n[3], pidfd); err != nil {
		in.close()
		return nil, err
	}
	in.group = s.groupNamed(name)
	return in, nil
}

// groupNamed is the group of that name, or a new one that is to have no workers:
// the program's new version has dropped it.
func (s *Set) groupNamed(name string) *group {
	for _, g := range s.groups {
		if g.Name == name {
			return g
		}
	}
	g := newGroup(Group{Name: name, Surge: 1, StartTimeout: DefaultStartTimeout, DrainTimeout: drain.DefaultTimeout})
	g.dropped = true
	s.groups = append(s.groups, g)
	return g
}
