package upgrader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// startDir is the working directory that this process was started in, by the
// name that the shell knew it by where there is one (os.Getwd trusts $PWD), so
// that a symbolic link in it may lead elsewhere by the next upgrade.
var startDir, _ = os.Getwd()

// attempt is one upgrade. All but proc and spawned belongs to the goroutine that
// runs Upgrade.
type attempt struct {
	path, dir, mark string
	conn            *wire.Conn
	childEnd        *os.File
	output          *output

	// Set by spawn, in tableflip's goroutine, before tableflip answers.
	spawned  bool
	spawnErr error
	proc     *launch.Process
	started  chan struct{} // closed when they are set
}

// Upgrade starts the program's current binary and puts it in this process's
// place. It returns nil once the new process decides: this one has been
// replaced, and should finish what it has and exit.
//
// Otherwise nothing has changed, and the error is one of ErrNotReady,
// ErrInProgress, ErrPredecessorAlive, ErrStopped, ErrSpent, ErrUnsupported, or a
// *FailedError with what the new program said and how it ended. The context
// bounds the upgrade in addition to Config.Timeout; without workers it also
// bounds the wait for a predecessor that still drains.
//
// In a process that has been replaced already, Upgrade asks the successor, by
// SIGHUP, and returns nil.
func (u *Upgrader) Upgrade(ctx context.Context) error {
	if u.Relay(syscall.SIGHUP) {
		return nil
	}
	if !launch.Supported {
		return ErrUnsupported
	}
	ctx, cancel := context.WithTimeout(ctx, u.cfg.Timeout)
	defer cancel()
	if err := u.begin(cancel); err != nil {
		return err
	}
	next := phaseReady
	defer func() { u.end(next) }()

	if err := u.tf.WaitForParent(ctx); ctx.Err() != nil {
		return fmt.Errorf("%w (%w)", ErrPredecessorAlive, err)
	}
	a, err := u.newAttempt()
	if err != nil {
		return err
	}
	u.attempt = a
	err = u.run(ctx, a)
	switch {
	case err == nil:
		next = phaseReplaced
	case errors.Is(err, ErrSpent):
		next = phaseSpent
	}
	return err
}

// begin enters phaseUpgrading, or says why not.
func (u *Upgrader) begin(cancel context.CancelFunc) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	switch u.phase {
	case phaseStarting:
		return ErrNotReady
	case phaseUpgrading:
		return ErrInProgress
	case phaseStopped, phaseReplaced:
		return ErrStopped
	case phaseSpent:
		return ErrSpent
	}
	u.phase = phaseUpgrading
	u.cancel = cancel
	u.idle = make(chan struct{})
	return nil
}

func (u *Upgrader) end(next phase) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if next == phaseReplaced {
		u.successor = u.attempt.proc
		close(u.replaced)
	}
	u.attempt = nil
	u.phase = next
	close(u.idle)
}

// newAttempt checks what can be checked and opens what an upgrade needs.
func (u *Upgrader) newAttempt() (*attempt, error) {
	a := &attempt{
		dir:     startDir,
		mark:    strconv.FormatInt(time.Now().UnixNano(), 36) + "." + strconv.Itoa(os.Getpid()),
		started: make(chan struct{}),
	}
	path := u.cfg.Path
	if path == "" {
		path = os.Args[0]
	}
	a.path = path
	failed := func(err error) error { return &FailedError{Path: a.path, Err: err, ExitCode: -1} }
	if !filepath.IsAbs(path) && strings.ContainsRune(path, '/') {
		a.path = filepath.Join(startDir, path)
	}
	found, err := exec.LookPath(a.path)
	if err != nil {
		return nil, failed(err)
	}
	a.path = found
	if st, err := os.Stat(a.dir); err != nil || !st.IsDir() {
		u.log.Warn("the working directory is gone: the new process starts in /", "directory", a.dir)
		a.dir = "/"
	}
	if a.output, err = newOutput(); err != nil {
		return nil, failed(err)
	}
	ours, theirs, err := wire.Pair()
	if err != nil {
		a.output.close()
		return nil, failed(err)
	}
	a.childEnd = theirs
	if a.conn, err = wire.NewConn(ours); err != nil {
		theirs.Close()
		a.output.close()
		return nil, failed(err)
	}
	return a, nil
}

// spawn starts the new process. tableflip calls it, from its own goroutine.
func (u *Upgrader) spawn(files []*os.File, env []string) (_ process, err error) {
	a := u.attempt
	a.spawned = true
	defer func() {
		a.spawnErr = err
		a.childEnd.Close()
		close(a.started)
	}()

	// tableflip's are standard input, output and error, and its two pipes.
	fds := make([]int, 0, len(files)+3)
	for _, f := range files {
		fd, err := launch.Fd(f)
		if err != nil {
			return nil, err
		}
		fds = append(fds, fd)
	}
	child, err := launch.Fd(a.childEnd)
	if err != nil {
		return nil, err
	}
	stdout, stderr := u.Stdio()
	first := len(fds)
	fds = append(fds, child, stdout, stderr)
	fds[1], fds[2] = a.output.fds()

	env = slices.DeleteFunc(env, func(kv string) bool {
		return strings.HasPrefix(kv, envAttempt+"=") || strings.HasPrefix(kv, "PWD=")
	})
	env = append(env, envAttempt+"="+a.mark, "PWD="+a.dir, fmt.Sprintf("%s=%d", envSuccession, first))
	title := u.cfg.Title
	if title == "" {
		title = a.path
	}
	args, env := launch.Titled(title, env)
	p, err := launch.Start(launch.Spec{Path: a.path, Args: args, Env: env, Dir: a.dir, Fds: fds})
	a.output.start()
	if err != nil {
		return nil, err
	}
	a.proc = p
	return tableflipProcess{p}, nil
}

// run carries the attempt to its end. When it returns an error, the new process
// and what it had started is gone, and this one decides.
func (u *Upgrader) run(ctx context.Context, a *attempt) error {
	flipped := make(chan error, 1)
	go func() { flipped <- u.flip(ctx, a) }()
	s := succession{u: u, a: a}
	var flipErr error
	done := false

	messages, stopReading := a.read()
	defer stopReading()
	if err := u.sendSockets(a.conn); err != nil {
		s.give(err)
	}
	for !done {
		select {
		case m, ok := <-messages:
			if !ok {
				messages = nil // its end is told by flipped
				continue
			}
			s.handle(ctx, m)
		case flipErr = <-flipped:
			done = true
		case <-s.overdue:
			s.kill()
		case <-ctx.Done():
			s.give(ctx.Err())
			flipErr = <-flipped
			done = true
		}
	}
	if flipErr == nil && s.yielded && s.cause == nil {
		a.output.finish(0)
		u.tellSupervisor(a.proc.Pid)
		return nil
	}
	if flipErr == nil {
		// It said Ready to tableflip, which can't be taken back, but not to us,
		// or too late.
		s.give(ErrSpent)
		a.proc.Wait()
	}
	return s.failed(flipErr)
}

// flip lets tableflip do its part. tableflip refuses, before it starts anything,
// for a moment after this process's own Ready and after its predecessor's end.
func (u *Upgrader) flip(ctx context.Context, a *attempt) error {
	// Whoever waits for the start has to be told that there is none.
	defer func() {
		if !a.spawned {
			close(a.started)
		}
	}()
	for {
		err := u.tf.Upgrade()
		if a.spawned || err == nil || ctx.Err() != nil {
			return err
		}
		select {
		case <-ctx.Done():
		case <-time.After(time.Millisecond):
		}
	}
}

// read delivers what the new process says until the connection ends. stop waits
// for that.
func (a *attempt) read() (messages <-chan message, stop func()) {
	ch := make(chan message)
	quit := make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer close(ch)
		for {
			m, err := receive(a.conn)
			if err != nil {
				return
			}
			select {
			case ch <- m:
			case <-quit:
				return
			}
		}
	}()
	return ch, func() {
		close(quit)
		a.conn.Close()
		<-done
	}
}

func (u *Upgrader) sendSockets(c *wire.Conn) error {
	u.mu.Lock()
	list := make([]*Socket, 0, len(u.sockets))
	for _, s := range u.sockets {
		list = append(list, s)
	}
	u.mu.Unlock()
	for {
		n := min(len(list), maxPerMessage)
		m := message{
			Cmd: cmdSockets, Version: successionVersion, MinVersion: 1,
			Generation: u.generation + 1, More: n < len(list),
		}
		var files []*os.File
		for _, s := range list[:n] {
			f, err := s.dup()
			if err != nil {
				closeAll(files)
				return err
			}
			m.Sockets = append(m.Sockets, s.spec)
			files = append(files, f)
		}
		err := c.Send(m, files...)
		closeAll(files)
		if err != nil || !m.More {
			return err
		}
		list = list[n:]
	}
}

func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
	}
}

// tellSupervisor names the new main process, as only the old one may
// (NotifyAccess=main, systemd.service(5)), and waits until that was read.
func (u *Upgrader) tellSupervisor(pid int) {
	err := sdnotify.Send(fmt.Sprintf("MAINPID=%d", pid))
	if err == nil {
		err = sdnotify.Barrier(5 * time.Second)
	}
	if err != nil {
		u.log.Error("the supervisor could not be told of the new process", "pid", pid, "error", err)
	}
}

// tableflipProcess is a launch.Process as tableflip wants it.
type tableflipProcess struct{ p *launch.Process }

func (t tableflipProcess) String() string { return fmt.Sprintf("pid=%d", t.p.Pid) }

func (t tableflipProcess) Signal(sig os.Signal) error {
	s, ok := sig.(syscall.Signal)
	if !ok {
		return fmt.Errorf("signal %v: not a signal of this system", sig)
	}
	return t.p.Signal(s)
}

func (t tableflipProcess) Wait() error {
	if st := t.p.Wait(); !st.Success() {
		return errors.New(st.String())
	}
	return nil
}
