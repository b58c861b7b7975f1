package workerset

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
)

// incarnation is one worker process, from the wish to have it to its end. All of
// it belongs to the loop, except what its two goroutines use: conn and proc, which
// do not change once they are set.
type incarnation struct {
	group      *group
	key        int // unique in the set
	id, slot   int // id is unique in the group's generation
	generation int
	state      lifecycle.State
	stale      bool // of an older generation or from before a rolling restart
	released   bool // was told that it may exit
	told       bool // it has said its state since it was adopted
	since      time.Time
	readyAt    time.Time
	deadline   time.Time // zero: none; it belongs to state, so none is ever stale
	report     wire.State
	cause      wire.Cause
	reason     string

	conn    *wire.Conn
	proc    *launch.Process
	reader  chan struct{} // closed when the reader has ended
	residue *wire.Residue // while the set is given away
}

func (in *incarnation) name() string { return fmt.Sprintf("%s/%d", in.group.Name, in.slot) }

func (in *incarnation) pid() int {
	if in.proc == nil {
		return 0
	}
	return in.proc.Pid
}

// event is what the loop gets from an incarnation's goroutines.
type event struct {
	in     *incarnation
	line   []byte        // a message
	lost   error         // the channel ended, or carried garbage
	died   bool          // the process has ended
	status launch.Status // with died
}

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
	fail := func(err error) error {
		in.conn.Close()
		return err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return fail(err)
	}
	defer null.Close()
	stdin, err := launch.Fd(null)
	if err != nil {
		return fail(err)
	}
	channel, err := launch.Fd(theirs)
	if err != nil {
		return fail(err)
	}
	fds := []int{stdin, s.cfg.Stdout, s.cfg.Stderr}
	for _, name := range in.group.Sockets {
		fds = append(fds, s.cfg.Sockets[name])
	}
	fds = append(fds, channel)

	p := s.cfg.Program
	env := p.Env
	if env == nil {
		env = os.Environ()
	}
	env = append(slices.DeleteFunc(slices.Clone(env), notForWorkers), in.group.Env...)
	env = append(env,
		fmt.Sprintf("%s=%d", wire.Env, len(fds)-1),
		fmt.Sprintf("HANDOVER_WORKER=%s/%d/%d/%d", in.group.Name, in.slot, in.id, in.generation),
		fmt.Sprintf("LISTEN_FDS=%d", len(in.group.Sockets)),
		"LISTEN_FDNAMES="+strings.Join(in.group.Sockets, ":"),
	)
	if s.committed {
		// There is no commit to wait for: it may accept as soon as it is ready,
		// which saves a round trip when a worker has died.
		env = append(env, "HANDOVER_ACCEPT=1")
	}
	if n := s.cfg.CPUs; n > 0 {
		env = append(env, fmt.Sprintf("GOMAXPROCS=%d", max(1, n/in.group.Count)))
	}
	spec := launch.Spec{Path: p.Path, Env: env, Dir: p.Dir, Fds: fds, Setsid: true}
	title := s.cfg.Name + ": worker " + in.name()
	if p.Path == "" {
		spec.Path = launch.Self
		spec.Args, spec.Env = launch.Titled(title, env)
	} else {
		spec.Args = append([]string{title}, p.Args...)
	}
	spec.Args = append(spec.Args, in.group.Args...)
	if in.proc, err = launch.Start(spec); err != nil {
		return fail(err)
	}
	s.follow(in)
	return nil
}

// notForWorkers are the variables that are the parent's own.
func notForWorkers(kv string) bool {
	k, _, _ := strings.Cut(kv, "=")
	switch k {
	case "NOTIFY_SOCKET", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES", "WATCHDOG_PID", "WATCHDOG_USEC",
		"TABLEFLIP_HAS_PARENT_7DIU3", "HANDOVER_ROLE", "HANDOVER_ANCHOR", "HANDOVER_ACCEPT", wire.Env:
		return true
	}
	return false
}

// follow starts the goroutines that watch in's channel and its process.
func (s *Set) follow(in *incarnation) {
	s.read(in)
	s.wg.Go(func() {
		status := in.proc.Wait()
		// Its last word may still be in the channel. The end of the process is
		// the end of the channel, unless something that it started holds it.
		select {
		case <-in.reader:
		case <-time.After(lastWordTime):
		case <-s.quit:
		}
		s.send(event{in: in, died: true, status: status})
	})
}

// lastWordTime is how long the channel of a dead worker is read on when it does
// not end by itself.
const lastWordTime = 50 * time.Millisecond

// read starts the goroutine that reads in's channel, until it ends or is halted.
func (s *Set) read(in *incarnation) {
	done := make(chan struct{})
	in.reader = done
	s.wg.Go(func() {
		defer close(done)
		for {
			line, err := in.conn.Read()
			if err == wire.ErrHalted {
				return
			}
			ev := event{in: in, lost: err}
			if err == nil {
				ev.line = slices.Clone(line)
			}
			if !s.send(ev) || err != nil {
				return
			}
		}
	})
}

// send gives an event to the loop; false when there is no loop any more.
func (s *Set) send(ev event) bool {
	select {
	case s.events <- ev:
		return true
	case <-s.quit:
		return false
	}
}

// release gives up everything of an incarnation that has ended.
func (in *incarnation) close() {
	if in.conn != nil {
		in.conn.Close()
	}
	if in.proc != nil {
		in.proc.Close()
	}
}

// tell sends one message without waiting. A worker that does not read, or that is
// gone, is found out by its deadlines.
func (in *incarnation) tell(v any) {
	if in.conn != nil {
		_ = in.conn.TrySend(v)
	}
}

func (in *incarnation) signal(sig syscall.Signal) {
	if in.proc != nil {
		_ = in.proc.Signal(sig)
	}
}

// dupFile is a copy of a descriptor to give away.
func dupFile(c syscall.Conn, name string) (*os.File, error) {
	rc, err := c.SyscallConn()
	if err != nil {
		return nil, err
	}
	fd := -1
	var derr error
	if err := rc.Control(func(n uintptr) { fd, derr = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) }); err != nil {
		return nil, err
	}
	if derr != nil {
		return nil, derr
	}
	return os.NewFile(uintptr(fd), name), nil
}

// identity is how a descriptor's name says whose it is:
// GROUP/SLOT/ID/GENERATION/PID.
func (in *incarnation) identity() string {
	return fmt.Sprintf("%s/%d/%d/%d/%d", in.group.Name, in.slot, in.id, in.generation, in.pid())
}

func parseIdentity(s string) (group string, n [4]int, err error) {
	parts := strings.Split(s, "/")
	if len(parts) != 5 {
		return "", n, fmt.Errorf("%q is not GROUP/SLOT/ID/GENERATION/PID", s)
	}
	for i := range n {
		if n[i], err = strconv.Atoi(parts[i+1]); err != nil || n[i] < 1 {
			return "", n, fmt.Errorf("%q: %q is not a positive number", s, parts[i+1])
		}
	}
	return parts[0], n, nil
}
