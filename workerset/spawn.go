package workerset

import (
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/wire"
)

// spawn starts the process of in.
func (s *Set) spawn(in *incarnation) error {
	ours, theirs, err := wire.Pair()
	if err != nil {
		return err
	}
	defer theirs.Close()
	if in.conn, err = wire.NewConn(ours); err != nil {
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	defer null.Close()
	stdin, err := launch.Fd(null)
	if err != nil {
		return err
	}
	channel, err := launch.Fd(theirs)
	if err != nil {
		return err
	}
	fds := []int{stdin, s.cfg.Stdout, s.cfg.Stderr}
	for _, name := range in.group.Sockets {
		fds = append(fds, s.cfg.Sockets[name])
	}
	fds = append(fds, channel)

	p := s.cfg.Program
	env := s.environ(in, len(fds)-1)
	title := s.cfg.Name + ": worker " + in.name()
	spec := launch.Spec{
		Path: p.Path, Args: append([]string{title}, p.Args...), Env: env,
		Dir: p.Dir, Fds: fds, Setsid: true,
	}
	if p.Path == "" {
		spec.Path = launch.Self
		args, env := launch.Titled(title, env)
		if spec.Env = env; p.Args == nil {
			spec.Args = args
		}
	}
	spec.Args = append(spec.Args, in.group.Args...)
	if in.proc, err = launch.Start(spec); err != nil {
		return err
	}
	s.follow(in)
	return nil
}

// environ is the environment of in, whose channel is descriptor channel.
func (s *Set) environ(in *incarnation, channel int) []string {
	g := in.group
	env := s.cfg.Program.Env
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), notForWorkers)
	if s.cfg.CPUs > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", share(s.cfg.CPUs, g.Count, in.slot)))
	}
	env = append(env, g.Env...)
	env = append(env,
		fmt.Sprintf("%s=%d", wire.Env, channel),
		fmt.Sprintf("%s=%s/%d/%d/%d", envWho, g.Name, in.slot, in.id, in.generation),
		fmt.Sprintf("LISTEN_FDS=%d", len(g.Sockets)),
		"LISTEN_FDNAMES="+strings.Join(g.Sockets, ":"),
	)
	if s.committed {
		// There is no commit to wait for: it may accept as soon as it is ready,
		// which saves a round trip when a worker has died.
		env = append(env, envAccept+"=1")
	}
	return env
}

// share is what the worker in a slot gets of the CPUs.
func share(cpus, workers, slot int) int {
	n := cpus / workers
	if slot <= cpus%workers {
		n++
	}
	return max(1, n)
}

// Variables that package worker reads.
const (
	envWho    = "HANDOVER_WORKER"
	envAccept = "HANDOVER_ACCEPT"
)

// notForWorkers are the variables that are the parent's own.
func notForWorkers(kv string) bool {
	k, _, _ := strings.Cut(kv, "=")
	switch k {
	case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC",
		"FDSTORE", "TABLEFLIP_HAS_PARENT_7DIU3", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID",
		"HANDOVER_ROLE", "HANDOVER_ANCHOR", "HANDOVER_SUCCESSION_FD", envWho, envAccept, wire.Env:
		return true
	}
	return false
}
