package upgrader

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/shortage"
	"github.com/handover-go/handover/internal/wire"
)

// startDir is the working directory that this process was started in, by the
// name that the shell knew it by where there is one (os.Getwd trusts $PWD), so
// that a symbolic link in it may lead elsewhere by the next upgrade.
var startDir, _ = os.Getwd()

// attempt is one upgrade. What spawn sets belongs to everybody once started is
// closed, the rest to the goroutine that runs Upgrade.
type attempt struct {
	path, dir, mark string
	name            string   // of the program, for people
	env             []string // added to the new process's
	conn            *wire.Conn
	output          *output
	ready           *os.File // what the new process says to tableflip arrives here
	wards           []ward

	// For the child. spawn closes them, or close if it was never called.
	childConn, childReady *os.File

	// Set by spawn, in tableflip's goroutine, before tableflip answers.
	spawned  bool
	spawnErr error
	proc     *launch.Process
	flip     *os.File      // where tableflip waits for the new process's word
	started  chan struct{} // closed when they are set
}

// newAttempt checks what can be checked and opens what an upgrade needs.
func (u *Upgrader) newAttempt(t Target) (_ *attempt, err error) {
	a := &attempt{
		path: t.Path, name: t.Name, env: t.Env,
		dir:     startDir,
		mark:    strconv.FormatInt(time.Now().UnixNano(), 36) + "." + strconv.Itoa(os.Getpid()),
		started: make(chan struct{}),
	}
	defer func() {
		a.name = cmp.Or(a.name, a.path)
		if err != nil {
			a.close()
			err = &FailedError{Path: a.name, Err: shortage.Explain(err), ExitCode: -1}
		}
	}()
	if a.path == "" {
		if a.path, err = find(u.cfg.path()); err != nil {
			return nil, err
		}
	}
	if st, err := os.Stat(a.dir); err != nil || !st.IsDir() {
		u.log.Warn("the working directory is gone: the new process starts in /", "directory", a.dir)
		a.dir = "/"
	}
	if a.output, err = newOutput(u.Stdio()); err != nil {
		return nil, err
	}
	if a.ready, a.childReady, err = os.Pipe(); err != nil {
		return nil, err
	}
	ours, theirs, err := wire.Pair()
	if err != nil {
		return nil, err
	}
	a.childConn = theirs
	a.conn, err = wire.NewConn(ours)
	return a, err
}

// close closes what is still open, but for proc.
func (a *attempt) close() {
	if a.conn != nil {
		a.conn.Close()
	}
	if a.output != nil {
		a.output.close()
	}
	closeAll([]*os.File{a.ready, a.childConn, a.childReady, a.flip})
	for _, w := range a.wards { // the new process's own, now that it decides
		w.close()
	}
}

// spawn starts the new process. tableflip calls it, from its own goroutine, with
// standard input, output and error and the child's ends of its two pipes.
//
// The new process gets another pipe in place of the first, on which it says to
// tableflip that it is ready, so that what it says can be refused: tableflip can't
// take back what it has heard, and could never upgrade again.
func (u *Upgrader) spawn(files []*os.File, env []string) (_ process, err error) {
	a := u.attempt
	a.spawned = true
	defer func() {
		a.spawnErr = err
		closeAll([]*os.File{a.childConn, a.childReady})
		close(a.started)
	}()
	if len(files) != 5 {
		return nil, fmt.Errorf("this tableflip passes %d files, not 5: use %s", len(files), tableflipVersion)
	}
	passed := []*os.File{files[0], nil, nil, a.childReady, files[4], a.childConn}
	first := len(passed) - 1 // of what is for meetPredecessor
	passed = append(passed, nil, nil, a.output.std[0].r, a.output.std[1].r)
	if _, err := launch.Fd(files[0]); err != nil {
		// The program has closed its standard input.
		if passed[0], err = os.Open(os.DevNull); err != nil {
			return nil, err
		}
		defer passed[0].Close()
	}
	fds := make([]int, len(passed))
	for i, f := range passed {
		if f != nil {
			if fds[i], err = launch.Fd(f); err != nil {
				return nil, err
			}
		}
	}
	fds[1], fds[2] = a.output.fds()
	fds[first+1], fds[first+2] = u.Stdio()

	env = slices.DeleteFunc(env, func(kv string) bool {
		return strings.HasPrefix(kv, envAttempt+"=") || strings.HasPrefix(kv, "PWD=") || namesUs(kv)
	})
	env = append(env, a.env...)
	env = append(env, envAttempt+"="+a.mark, "PWD="+a.dir, fmt.Sprintf("%s=%d", envSuccession, first))
	title := u.cfg.Title
	if title == "" {
		title = a.name
	}
	args, env := launch.Titled(title, env)
	p, err := launch.Start(launch.Spec{Path: a.path, Args: args, Env: env, Dir: a.dir, Fds: fds, Sibling: sdnotify.Enabled() && !sdnotify.Anchored()})
	a.output.start()
	if err != nil {
		return nil, err
	}
	a.proc = p
	fault.Point(fault.OldStarted)
	// tableflip does not need its copies of the child's ends any more, and leaves
	// them to the garbage collector.
	a.flip = files[3]
	files[4].Close()
	return tableflipProcess{p}, nil
}

// heard is a message of the new process, or why there are no more.
type heard struct {
	message
	err error
}

// read delivers what the new process says, and when it has said to tableflip that
// it is ready; ready is closed then, or when it won't. stop ends that, and waits for the end.
func (a *attempt) read() (messages <-chan heard, ready <-chan struct{}, stop func()) {
	words, said, quit := make(chan heard), make(chan struct{}, 1), make(chan struct{})
	var readers sync.WaitGroup
	readers.Go(func() {
		defer close(words)
		for {
			m, err := receive(a.conn)
			if errors.Is(err, io.EOF) {
				return
			}
			select {
			case words <- heard{m, err}:
			case <-quit:
				return
			}
			if err != nil {
				return
			}
		}
	})
	readers.Go(func() {
		defer close(said)
		b := make([]byte, 1)
		n, _ := a.ready.Read(b)
		if n == 0 {
			n = readNow(a.ready, b) // its time is up, but what has arrived counts
		}
		if n == 1 && b[0] == tableflipReady {
			said <- struct{}{}
		}
	})
	return words, said, func() {
		close(quit)
		a.conn.Close()
		a.ready.Close()
		readers.Wait()
	}
}

// readNow reads what is there, whatever the file's deadline.
func readNow(f *os.File, b []byte) (n int) {
	if rc, err := f.SyscallConn(); err == nil {
		_ = rc.Control(func(fd uintptr) { n, _ = syscall.Read(int(fd), b) })
	}
	return n
}

// passReady tells tableflip what the new process has said.
func (a *attempt) passReady() { _, _ = a.flip.Write([]byte{tableflipReady}) }

// stopSending ends a Send that waits.
func (a *attempt) stopSending() { _ = a.conn.SetWriteDeadline(time.Now()) }

func (u *Upgrader) sendSockets(c *wire.Conn) error {
	u.mu.Lock()
	// For those that this process does without, the new one may have a use.
	list := slices.AppendSeq(slices.Clone(u.dropped), maps.Values(u.sockets))
	u.mu.Unlock()
	list = slices.DeleteFunc(list, func(s *Socket) bool { return s.Fd() < 0 })
	for {
		n := min(len(list), maxPerMessage)
		m := message{
			Cmd: cmdSockets, Version: successionVersion, MinVersion: successionMin,
			Generation: u.generation + 1, More: n < len(list),
		}
		var files []*os.File
		for _, s := range list[:n] {
			f, err := s.dup()
			if err != nil && s.Fd() < 0 {
				continue // closed meanwhile
			}
			if err != nil {
				closeAll(files)
				return err
			}
			m.Sockets = append(m.Sockets, entry{s.spec, s.adopted})
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

// closeAll closes files, of which some may be nil or closed already.
func closeAll(files []*os.File) {
	for _, f := range files {
		f.Close()
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
