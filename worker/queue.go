package worker

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/moving"
	"github.com/handover-go/handover/internal/wire"
)

// inheritedQueues are those by which connections move to and from other workers.
func (w *Worker) inheritedQueues() error {
	list := os.Getenv(wire.EnvQueues)
	os.Unsetenv(wire.EnvQueues)
	w.queues = map[string]*drain.Queue{}
	for _, entry := range strings.Fields(list) {
		name, give, take, err := parseQueue(entry)
		if err == nil && w.sockets[name] == nil {
			err = fmt.Errorf("there is no socket %q", name)
		}
		if err != nil {
			return fmt.Errorf("%s=%q: %w", wire.EnvQueues, entry, err)
		}
		q, err := moving.Open(give, take)
		if err != nil {
			return fmt.Errorf("%s=%q: %w", wire.EnvQueues, entry, err)
		}
		unix.Close(give) // the queue has copies
		unix.Close(take)
		w.queues[name] = q
	}
	return nil
}

// parseQueue reads NAME=GIVE,TAKE.
func parseQueue(s string) (name string, give, take int, err error) {
	name, ends, ok := strings.Cut(s, "=")
	g, t, ok2 := strings.Cut(ends, ",")
	give, gerr := strconv.Atoi(g)
	take, terr := strconv.Atoi(t)
	if !ok || !ok2 || name == "" || gerr != nil || terr != nil || give < 3 || take < 3 {
		return "", 0, 0, fmt.Errorf("want NAME=GIVE,TAKE, descriptors from 3 on")
	}
	return name, give, take, nil
}

func (w *Worker) closeQueues() {
	for _, q := range w.queues {
		q.Close()
	}
}

// moves does what the parent says about connections that move.
func (w *Worker) moves(m wire.Move) {
	role, ok := map[wire.Move]drain.Role{
		wire.MoveTake: drain.Take, wire.MoveShare: drain.Share, wire.MoveKeep: drain.Keep, wire.MoveGive: drain.Give,
	}[m]
	if !ok {
		role = drain.Stay
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if role == drain.Stay && w.ctx.Err() != nil {
		role = drain.Keep // from a new parent, which does not know of the drain yet
	}
	w.movesLocked(role)
}

func (w *Worker) movesLocked(role drain.Role) {
	w.move = role
	for _, d := range w.drainers {
		d.Move(role)
	}
}
