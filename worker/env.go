package worker

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/tickets"
)

// Env names the environment variable that says who a worker is:
// GROUP/SLOT/ID/GENERATION.
const Env = wire.EnvWho

// Inherited reports whether this process was started as a worker.
func Inherited() bool { return os.Getenv(wire.Env) != "" }

func bad(format string, args ...any) error {
	return fmt.Errorf("%w: %w", ErrConfig, fmt.Errorf(format, args...))
}

// Validate says which part of the configuration can't work, in an error that wraps
// ErrConfig. Nothing is opened.
func (c Config) Validate() error {
	if c.DrainTimeout < 0 || c.LameDuck < 0 || c.StopDelay < 0 {
		return bad("drain timeout %v, lame duck %v and stop delay %v must not be negative", c.DrainTimeout, c.LameDuck, c.StopDelay)
	}
	if c.MaxConns < 0 {
		return bad("at most %d connections: it must be positive, or 0 for no limit", c.MaxConns)
	}
	if every := c.TicketRotation; every != 0 && every < time.Second {
		return bad("ticket rotation %v: it must be at least 1s, or 0 for %v", every, tickets.DefaultEvery)
	}
	if _, err := listen.ParseAll(c.Listen); err != nil {
		return bad("%w", err)
	}
	return nil
}

// newWorker reads what the worker was given. It takes it out of the environment,
// so that what the app starts does not take itself for a worker.
func newWorker(ctx context.Context, cfg Config) (*Worker, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.Default()
	}
	if cfg.DrainTimeout == 0 {
		cfg.DrainTimeout = drain.DefaultTimeout
	}
	w := &Worker{
		cfg:     cfg,
		log:     cfg.Logger,
		timeout: cfg.DrainTimeout,
		sockets: map[string]*socket{},
		accept:  make(chan struct{}),
		dirty:   make(chan struct{}, 1),
		quit:    make(chan struct{}),
		idle:    make(chan struct{}),
		leave:   make(chan struct{}),
		mayExit: make(chan struct{}),
		ending:  make(chan struct{}),
	}
	w.ctx, w.stop = context.WithCancel(context.WithoutCancel(ctx))
	w.mail.more = make(chan struct{}, 1)
	w.serviceChanged = make(chan struct{})
	w.state = wire.State{
		Cmd: wire.CmdState, Version: wire.Version, Pid: os.Getpid(),
		ID: 1, Group: "main", Slot: 1, Generation: 1, Phase: wire.PhaseStarting,
	}
	w.eager = !Inherited() || os.Getenv(wire.EnvAccept) != ""
	os.Unsetenv(wire.EnvAccept)
	w.keeps = os.Getenv(wire.EnvKeep) != ""
	os.Unsetenv(wire.EnvKeep)
	if !Inherited() {
		if err := w.ownSockets(); err != nil {
			return nil, bad("%w", err)
		}
		w.post = message.NewAlone(w.state.Group)
		return w, nil
	}
	w.post = message.New(&w.mail)
	chanFd, who := os.Getenv(wire.Env), os.Getenv(Env)
	os.Unsetenv(wire.Env)
	os.Unsetenv(Env)
	os.Unsetenv("NODE_CHANNEL_FD")
	if err := w.inheritedSockets(); err != nil {
		return nil, bad("%w", err)
	}
	if err := w.inheritedQueues(); err != nil {
		return nil, bad("%w", err)
	}
	if err := w.inheritedTickets(); err != nil {
		return nil, bad("%w", err)
	}
	fd, err := strconv.Atoi(chanFd)
	if err != nil || fd < 0 {
		return nil, bad("%s=%q: not a descriptor number", wire.Env, chanFd)
	}
	for name, s := range w.sockets {
		if s.fd == fd {
			return nil, bad("%s=%q: that descriptor is the socket %q", wire.Env, chanFd, name)
		}
	}
	syscall.CloseOnExec(fd)
	f := os.NewFile(uintptr(fd), "channel")
	conn, err := wire.NewConn(f)
	if err != nil {
		return nil, bad("%s=%q: %w", wire.Env, chanFd, err)
	}
	w.conn.set(conn, nil)
	w.mail.conn = &w.conn
	if err := parseWho(who, &w.state); err != nil {
		return nil, bad("%s=%q: %w", Env, who, err)
	}
	w.log = w.log.With("worker", w.Name(), "id", w.ID(), "pid", os.Getpid(), "generation", w.Generation())
	if err := w.promise(); err != nil {
		return nil, err
	}
	if err := w.inheritedHome(); err != nil {
		return nil, bad("%w", err)
	}
	w.changed()
	return w, nil
}

func parseWho(s string, st *wire.State) error {
	parts := strings.Split(s, "/")
	if len(parts) != 4 || parts[0] == "" {
		return fmt.Errorf("want GROUP/SLOT/ID/GENERATION")
	}
	st.Group = parts[0]
	for i, p := range []*int{&st.Slot, &st.ID, &st.Generation} {
		n, err := strconv.Atoi(parts[i+1])
		if err != nil || n < 1 {
			return fmt.Errorf("%q is not a positive number", parts[i+1])
		}
		*p = n
	}
	return nil
}

// ownSockets are those of a process without a parent: what a supervisor has passed,
// and the rest to be bound when they are taken.
func (w *Worker) ownSockets() error {
	specs, err := listen.ParseAll(w.cfg.Listen)
	if err != nil {
		return err
	}
	if w.passed, err = listen.FromSupervisor(); err != nil {
		return err
	}
	for _, s := range specs {
		fd, _, err := w.passed.Socket(s)
		if err != nil {
			return fmt.Errorf("socket %v: %w", s, err)
		}
		w.sockets[s.Name] = &socket{spec: s, fd: fd, kind: s.Kind()}
	}
	return nil
}

// inheritedSockets are those that a parent has passed.
func (w *Worker) inheritedSockets() error {
	passed, err := listen.FromParent()
	if err != nil {
		return err
	}
	for _, d := range passed {
		kind, err := listen.Kind(d.Fd)
		if err != nil {
			return fmt.Errorf("socket %q, descriptor %d: %w", d.Name, d.Fd, err)
		}
		w.sockets[d.Name] = &socket{fd: d.Fd, kind: kind}
	}
	return nil
}

// Name is the worker's group and slot, such as "web/1".
func (w *Worker) Name() string { return fmt.Sprintf("%s/%d", w.state.Group, w.state.Slot) }

// ID is unique among the workers of its group and generation. A replacement has
// another.
func (w *Worker) ID() int { return w.state.ID }

// Group is the name of the worker's group.
func (w *Worker) Group() string { return w.state.Group }

// Slot is the worker's place in its group, from 1 to the group's count. A
// replacement has the same, so what is to be done once belongs in slot 1; for a
// short time the old and the new worker of a slot both run.
func (w *Worker) Slot() int { return w.state.Slot }

// Generation is that of the parent which started this worker.
func (w *Worker) Generation() int { return w.state.Generation }

// HasParent reports whether there is, or was, one.
func (w *Worker) HasParent() bool { return w.conn.get() != nil }

// Sockets are the names of the sockets and files that the worker has, sorted. See
// Network.
func (w *Worker) Sockets() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.sockets))
}
