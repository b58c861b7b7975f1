package workerset

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
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
	// pidfd.
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

// estateState is versioned by adding fields only.
type estateState struct {
	Version int                   `json:"v"`
	Groups  map[string]groupState `json:"groups"`
	Residue map[string][]byte     `json:"residue,omitempty"` // by identity: the part of a line that was read
}

type groupState struct {
	Count      int `json:"count"`
	Configured int `json:"configured"`
	Restarts   int `json:"restarts"`
	Failures   int `json:"failures"`
}

// maxResidue bounds what is handed on of an unfinished line. A worker that is in
// the middle of a longer one loses its channel, and drains.
const maxResidue = 64 << 10

// Yield stops deciding and returns copies of everything that another process
// needs to decide instead. From then on the set does nothing, until Resume or
// Abandon. The files are the caller's to close.
func (s *Set) Yield(ctx context.Context) (Estate, error) {
	e := Estate{Files: map[string]*os.File{}}
	var err error
	derr := s.do(ctx, func() { err = s.yield(&e) })
	if err = errors.Join(derr, err); err != nil {
		e.Close()
		if derr == nil {
			s.Resume()
		}
		return Estate{}, err
	}
	return e, nil
}

func (s *Set) yield(e *Estate) error {
	if s.stopping {
		return ErrEnded
	}
	if s.yielded {
		return errors.New("workerset: given away already")
	}
	s.yielded = true
	st := estateState{Version: 1, Groups: map[string]groupState{}, Residue: map[string][]byte{}}
	for _, g := range s.groups {
		st.Groups[g.Name] = groupState{Count: g.Count, Configured: g.configured, Restarts: g.restarts, Failures: g.failures}
		for _, in := range g.members {
			res, err := in.conn.Halt()
			if err != nil {
				continue // its channel has ended: it drains, and dies
			}
			in.residue = &res
			if len(res.Bytes) > maxResidue || len(res.Files) > 0 {
				continue
			}
			if len(res.Bytes) > 0 {
				st.Residue[in.identity()] = res.Bytes
			}
			channel, err := dupFile(in.conn, kindChannel+in.identity())
			if err != nil {
				return fmt.Errorf("worker %s: %w", in.name(), err)
			}
			e.Files[channel.Name()] = channel
			pidfd, err := dupFile(in.proc.Pidfd(), kindPidfd+in.identity())
			if err != nil {
				return fmt.Errorf("worker %s: %w", in.name(), err)
			}
			e.Files[pidfd.Name()] = pidfd
		}
	}
	var err error
	e.State, err = json.Marshal(st)
	return err
}

// Resume decides again after a Yield: whoever got the estate is dead. What
// happened meanwhile is made up for, and the workers are asked what they do.
func (s *Set) Resume() {
	_ = s.do(context.Background(), func() {
		if !s.yielded {
			return
		}
		s.yielded = false
		for _, g := range s.groups {
			for _, in := range g.members {
				if in.residue != nil {
					in.conn.Unhalt(*in.residue)
					in.residue = nil
					s.read(in)
				}
				in.tell(wire.Order{Cmd: wire.CmdWho})
			}
		}
		held := s.held
		s.held = nil
		for _, ev := range held {
			s.handle(ev)
		}
	})
}

// Abandon ends Run without a word to the workers: they belong to another process
// now.
func (s *Set) Abandon() {
	_ = s.do(context.Background(), func() { s.over = true })
}

// Commit ends a trial: the workers that stand by begin to serve, the rest of the
// count is started, and the workers of the estate, if there are any, are taken
// over and then replaced, Surge at a time. It takes ownership of the estate's
// files.
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
	for name, gs := range st.Groups {
		g := s.groupNamed(name)
		g.restarts += gs.Restarts
		g.failures += gs.Failures
		if g.configured == gs.Configured {
			g.Count = gs.Count // scaled at run time, and nobody has said otherwise since
		}
	}
	for name, channel := range e.Files {
		identity, ok := strings.CutPrefix(name, kindChannel)
		if !ok {
			continue
		}
		pidfd := e.Files[kindPidfd+identity]
		delete(e.Files, name)
		delete(e.Files, kindPidfd+identity)
		if err := s.adoptOne(identity, channel, pidfd, st.Residue[identity]); err != nil {
			s.log.Error("a worker of the previous parent could not be taken over, it drains", "worker", identity, "error", err)
		}
	}
	e.Close()
}

func (s *Set) adoptOne(identity string, channel, pidfd *os.File, residue []byte) error {
	name, n, err := parseIdentity(identity)
	if err != nil || pidfd == nil {
		channel.Close()
		if pidfd != nil {
			pidfd.Close()
		}
		return errors.Join(err, errors.New("descriptors are missing"))
	}
	in := &incarnation{
		group: s.groupNamed(name), key: s.nextKey(), slot: n[0], id: n[1], generation: n[2],
		state: lifecycle.Spawning, since: time.Now(), readyAt: time.Now(), stale: true,
	}
	if in.conn, err = wire.Resume(channel, wire.Residue{Bytes: residue}); err != nil {
		pidfd.Close()
		return err
	}
	if in.proc, err = launch.Adopt(n[3], pidfd); err != nil {
		in.conn.Close()
		return err
	}
	in.group.members = append(in.group.members, in)
	s.follow(in)
	s.apply(in, lifecycle.Adopted)
	return nil
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
	s.groups = append(s.groups, g)
	return g
}
