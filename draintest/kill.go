package draintest

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/handover-go/handover/draintest/procs"
)

// KillWorker kills a process that serves, by SIGKILL, other than the main one. What it had
// accepted is lost with it, and excused. It needs Linux.
func KillWorker() Action { return Action{name: "kill -9 of a worker", needsPID: true, kill: true} }

// excuse is for what was lost with a process that was killed: connections of these
// clients, at that time.
type excuse struct {
	at    time.Time
	peers map[string]bool
}

// freezeTime is how long a process may take to stop.
const freezeTime = 10 * time.Second

// kill kills the worker that has the most connections.
func (t *test) kill(ctx context.Context) (excuse, error) {
	ctx, cancel := context.WithTimeout(ctx, freezeTime)
	defer cancel()
	t.look()
	main := t.subject.main()
	var victim *Life
	most := 0
	for _, l := range t.subject.tree.alive() {
		if l.PID == main {
			continue
		}
		peers, err := procs.Peers(l.PID)
		if err != nil {
			return excuse{}, err
		}
		if len(peers) > most {
			victim, most = l, len(peers)
		}
	}
	if victim == nil {
		return excuse{}, errors.New("draintest: no process serves besides the main one")
	}
	if err := procs.Freeze(ctx, victim.PID); err != nil {
		_ = syscall.Kill(victim.PID, syscall.SIGCONT)
		return excuse{}, err
	}
	e := excuse{at: time.Now()}
	var err error
	e.peers, err = procs.Peers(victim.PID)
	if kerr := syscall.Kill(victim.PID, syscall.SIGKILL); kerr != nil {
		err = errors.Join(err, fmt.Errorf("draintest: killing process %d: %w", victim.PID, kerr))
	}
	return e, err
}
