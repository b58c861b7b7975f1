package workerset

import (
	"cmp"
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/pipe"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// spawn starts the process of in.
func (s *Set) spawn(in *incarnation) error {
	b := birth{set: s, in: in}
	defer b.close()
	if err := b.open(); err != nil {
		return err
	}
	spec := b.spec()
	var err error
	if in.proc, err = launch.Start(spec); err != nil {
		return err
	}
	in.began = time.Now()
	in.limits = in.as.Recycle.draw(in)
	s.announce(in, Event{Kind: EventFork})
	if in.program {
		s.announce(in, Event{Kind: EventOnline})
	}
	s.follow(in)
	s.keep(in)
	fault.Point(fault.RollStarted)
	if in.program || s.committed {
		s.maySoonServe(in)
	}
	return nil
}

// maySoonServe tells Config.Started.
func (s *Set) maySoonServe(in *incarnation) {
	if s.cfg.Started == nil {
		return
	}
	st := Started{
		Pid: in.proc.Pid, Pidfd: in.proc.Pidfd(),
		DrainSignal: in.as.DrainSignal, DrainTimeout: in.as.DrainTimeout,
	}
	for _, stream := range in.streams {
		st.Output = append(st.Output, stream.r)
	}
	s.cfg.Started(st)
}

// birth is the start of a process: what it is given, until it has it.
type birth struct {
	set  *Set
	in   *incarnation
	fds  []int      // its descriptors
	temp []*os.File // this process's copies of what is for it alone
	// Numbers in the new process.
	channel, crash int
	queues         []string // as in wire.EnvQueues
	tickets        int      // 0: none
	home           []string // as in wire.EnvHome
}

func (b *birth) close() {
	for _, f := range b.temp {
		f.Close()
	}
}

// give makes f the process's next descriptor, closed here once it has started.
func (b *birth) give(f *os.File) (number int, err error) {
	b.temp = append(b.temp, f)
	fd, err := launch.Fd(f)
	b.fds = append(b.fds, fd)
	return len(b.fds) - 1, err
}

// share gives the process the end of a pipe that is read here, by which it can do nothing to
// the flags of this process's own.
func (b *birth) share(st *stream) (number int, err error) {
	fd, err := launch.Fd(st.r)
	if err == nil {
		fd, err = pipe.Own(fd, os.O_RDONLY)
	}
	if err != nil {
		return 0, fmt.Errorf("%s: %w", st.name, err)
	}
	return b.give(os.NewFile(uintptr(fd), st.name))
}

// discard makes nothing of the process's standard output and error.
func (b *birth) discard() error {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	n, err := b.give(null)
	b.fds = append(b.fds, b.fds[n])
	return err
}

// open opens all that the process gets. Standard input, output and error come
// first, then the sockets (sd_listen_fds(3)).
func (b *birth) open() error {
	s, in := b.set, b.in
	null, err := os.Open(os.DevNull)
	if err != nil {
		return err
	}
	if _, err := b.give(null); err != nil {
		return err
	}
	if in.program && s.cfg.Output != OutputRaw || !in.program && in.as.KeepOutput {
		for _, name := range []string{"stdout", "stderr"} {
			st, w, err := openStream(name)
			if err != nil {
				return err
			}
			in.streams = append(in.streams, st)
			// What a program expects of its standard output is a blocking file.
			b.temp = append(b.temp, w)
			b.fds = append(b.fds, int(w.Fd()))
		}
	} else if in.as.Silent {
		if err := b.discard(); err != nil {
			return err
		}
	} else {
		b.fds = append(b.fds, s.cfg.Stdout, s.cfg.Stderr)
	}
	for _, name := range in.as.socketsOf(in.slot) {
		b.fds = append(b.fds, s.cfg.Sockets[name])
	}
	ours, theirs, err := wire.Pair()
	if err != nil {
		return err
	}
	if b.channel, err = b.give(theirs); err != nil {
		ours.Close()
		return err
	}
	conn, err := wire.NewConn(ours)
	if err != nil {
		return err
	}
	s.connectTo(in, conn, nil)
	if in.crash, err = launch.MemoryFile("crash:" + in.name()); err != nil {
		return err
	}
	fd, err := launch.Fd(in.crash)
	b.fds = append(b.fds, fd)
	b.crash = len(b.fds) - 1
	for _, name := range in.as.Sockets {
		if q, ok := in.as.Queues[name]; ok && !in.program {
			b.queues = append(b.queues, fmt.Sprintf("%s=%d,%d", name, len(b.fds), len(b.fds)+1))
			b.fds = append(b.fds, q.Give, q.Take)
		}
	}
	if in.as.Tickets > 0 && !in.program {
		b.tickets = len(b.fds)
		b.fds = append(b.fds, in.as.Tickets)
	}
	if in.as.Home.Report > 0 && !in.program {
		b.home = append(b.home, strconv.Itoa(len(b.fds)))
		b.fds = append(b.fds, in.as.Home.Report)
		for _, st := range in.streams { // what it prints meanwhile is not lost, nor its reader
			number, serr := b.share(st)
			err = errors.Join(err, serr)
			b.home = append(b.home, fmt.Sprintf("%s=%d", st.name, number))
		}
	}
	if err == nil && in.program {
		in.inbox, err = sdnotify.NewInbox()
	}
	return err
}

// spec is what to execute.
func (b *birth) spec() launch.Spec {
	s, in := b.set, b.in
	p := *in.as.Program
	spec := launch.Spec{Path: p.Path, Env: b.environ(), Dir: p.Dir, Fds: b.fds, Setsid: true}
	if in.program {
		// Its own name in argv[0]: many programs look for things by it.
		spec.Args = append([]string{cmp.Or(p.Name, p.Path)}, p.Args...)
		spec.Prepare = &launch.Prepare{PidVars: []string{"LISTEN_PID"}, Umask: p.Umask, Limits: p.Limits, User: in.as.User}
		if in.as.HungAfter > 0 {
			spec.Prepare.PidVars = append(spec.Prepare.PidVars, "WATCHDOG_PID")
		}
	} else {
		title := s.cfg.Name + ": worker " + in.name()
		spec.Path, spec.User = launch.Self, in.as.User
		args, env := launch.Titled(title, spec.Env)
		if spec.Args, spec.Env = args, env; p.Args != nil {
			spec.Args = append([]string{title}, p.Args...)
		}
	}
	spec.Args = append(spec.Args, in.as.Args...)
	return spec
}

// environ is the process's environment.
func (b *birth) environ() []string {
	s, in, g := b.set, b.in, &b.in.as
	sockets := g.socketsOf(in.slot)
	env := g.Program.Env
	if env == nil {
		env = os.Environ()
	}
	env = slices.DeleteFunc(slices.Clone(env), notForWorkers)
	if s.cfg.CPUs > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", share(s.cfg.CPUs, g.Count, in.slot)))
	}
	env = append(env, g.Env...)
	env = append(env,
		fmt.Sprintf("%s=%d", wire.Env, b.channel),
		fmt.Sprintf("%s=%s/%d/%d/%d", wire.EnvWho, g.Name, in.slot, in.id, in.generation),
		fmt.Sprintf("%s=%d", wire.EnvCrash, b.crash),
		fmt.Sprintf("%s=%d", wire.EnvHeartbeat, g.Heartbeat.Milliseconds()),
		fmt.Sprintf("LISTEN_FDS=%d", len(sockets)),
		"LISTEN_FDNAMES="+strings.Join(sockets, ":"),
	)
	if len(b.queues) > 0 {
		env = append(env, wire.EnvQueues+"="+strings.Join(b.queues, " "))
	}
	if b.tickets > 0 {
		env = append(env, fmt.Sprintf("%s=%d", wire.EnvTickets, b.tickets))
	}
	if len(b.home) > 0 {
		env = append(env, wire.EnvHome+"="+strings.Join(b.home, " "), wire.EnvRecipe+"="+s.cfg.Recipe)
		if s.cfg.Grace > 0 {
			env = append(env, fmt.Sprintf("%s=%d", wire.EnvGrace, s.cfg.Grace.Milliseconds()))
		}
	}
	if s.committed && g.Ready.By == ReadyDefault {
		// There is no commit to wait for: it may accept as soon as it is ready,
		// which saves a round trip when a worker has died.
		env = append(env, wire.EnvAccept+"=1")
	}
	if g.KeepFailed {
		env = append(env, wire.EnvKeep+"=1")
	}
	if !in.program {
		return env
	}
	env = append(env, sdnotify.Env+"="+in.inbox.Addr())
	if g.HungAfter > 0 {
		env = append(env, fmt.Sprintf("WATCHDOG_USEC=%d", g.HungAfter.Microseconds()))
	}
	if g.NodeChannel == NodeYes || g.NodeChannel == NodeCluster || g.NodeChannel == NodeAuto && isNode(g.Program.Path) {
		in.talks = true
		env = append(env, fmt.Sprintf("NODE_CHANNEL_FD=%d", b.channel))
	}
	if g.NodeChannel == NodeCluster {
		env = append(env, fmt.Sprintf("NODE_UNIQUE_ID=%d", in.id))
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

// notForWorkers are the variables that are the parent's own. All that begin with envOurs
// are: what says how to run this service is not for one that a worker may start.
func notForWorkers(kv string) bool {
	k, _, _ := strings.Cut(kv, "=")
	switch k {
	case sdnotify.Env, "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC",
		"FDSTORE", "TABLEFLIP_HAS_PARENT_7DIU3", "NODE_CHANNEL_FD", "NODE_UNIQUE_ID":
		return true
	}
	// By this one, which is no flag's, an upgrade that has failed finds what it had started.
	return strings.HasPrefix(k, envOurs) && k != "HANDOVER_ATTEMPT"
}

// envOurs begins the names of the toolkit's variables, and of those that are flags of its
// command.
const envOurs = "HANDOVER_"
