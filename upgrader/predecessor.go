package upgrader

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// envSuccession holds the first of five descriptors in a process that an upgrade
// started: the succession, the service's standard output and error, and the read
// ends of the pipes that this process's output and error go to until its commit.
const envSuccession = "HANDOVER_SUCCESSION_FD"

// envAttempt marks everything that one upgrade starts, so that all of it can be
// found when it fails.
const envAttempt = "HANDOVER_ATTEMPT"

// errOrphaned: the predecessor died before it had committed.
var errOrphaned = errors.New("the predecessor died before the commit")

// predecessor is the new process's view of the old one.
type predecessor struct {
	conn           *wire.Conn
	generation     int
	version        int // that it speaks
	sockets        map[listen.Spec]*Socket
	stdout, stderr int

	// The new process has the read ends from its start: a process that writes to
	// its standard error when nobody reads it is killed, and the old one can die.
	pipes   [2]*os.File
	turn    sync.Once
	copying sync.WaitGroup

	arrived chan struct{} // closed when legacy and err are set
	legacy  Legacy
	err     error
}

// meetPredecessor reads what the predecessor has to say before anything else.
// It returns nil in a first generation.
func meetPredecessor() (*predecessor, error) {
	v := os.Getenv(envSuccession)
	os.Unsetenv(envSuccession)
	if v == "" {
		return nil, nil
	}
	fd, err := strconv.Atoi(v)
	if err != nil || fd < 3 {
		return nil, fmt.Errorf("%s=%q: not a descriptor number", envSuccession, v)
	}
	for i := range 5 {
		if _, err := unix.FcntlInt(uintptr(fd+i), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("%s=%q: descriptor %d: %w", envSuccession, v, fd+i, err)
		}
	}
	for i := range 5 {
		syscall.CloseOnExec(fd + i)
	}
	conn, err := wire.NewConn(os.NewFile(uintptr(fd), "succession"))
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", envSuccession, v, err)
	}
	p := newPredecessor(conn)
	p.stdout, p.stderr = fd+1, fd+2
	for i := range p.pipes {
		p.pipes[i] = os.NewFile(uintptr(fd+3+i), "output")
	}
	if err := p.meet(); err != nil {
		p.fail(err)
		p.close()
		return nil, err
	}
	return p, nil
}

func newPredecessor(conn *wire.Conn) *predecessor {
	return &predecessor{conn: conn, sockets: map[listen.Spec]*Socket{}, arrived: make(chan struct{})}
}

// meet takes the sockets, answers, and begins to wait for the commit. close ends
// that.
func (p *predecessor) meet() error {
	err := p.inherit()
	if err == nil {
		err = p.conn.Send(message{Cmd: cmdHello, Version: successionVersion, MinVersion: successionMin})
		if errors.Is(err, syscall.EPIPE) {
			err = nil // it has died, but left its sockets: await takes note
		}
	}
	if err != nil {
		if gone(err) {
			p.takeOutput() // or what this process says last is never read
		}
		for _, s := range p.sockets {
			s.Close()
		}
		p.err = err
		close(p.arrived)
		return err
	}
	go p.await()
	return nil
}

func (p *predecessor) inherit() error {
	for more := true; more; {
		m, err := receive(p.conn)
		if err != nil {
			return fmt.Errorf("the predecessor did not say what there is to inherit: %w", err)
		}
		if m.Cmd != cmdSockets {
			return fmt.Errorf("the predecessor began with %q instead of %q", m.Cmd, cmdSockets)
		}
		if err := checkVersion(m); err != nil {
			return err
		}
		files, err := p.conn.TakeFiles(len(m.Sockets))
		if err != nil {
			return fmt.Errorf("%d sockets announced: %w", len(m.Sockets), err)
		}
		for i, f := range files {
			s, err := inheritSocket(m.Sockets[i], f)
			if err != nil {
				closeAll(files[i+1:])
				return err
			}
			p.sockets[s.spec] = s
		}
		p.generation, p.version = m.Generation, m.Version
		more = m.More
	}
	return nil
}

// await takes in what comes at the commit. It is a goroutine of its own from the
// start, so that the predecessor's death is noticed whatever this process does.
func (p *predecessor) await() {
	defer close(p.arrived)
	p.legacy, p.err = receiveLegacy(p.conn)
	switch {
	case gone(p.err):
		p.err = errOrphaned
		p.takeOutput() // or this process blocks when the pipes are full
	case p.err != nil:
		p.err = fmt.Errorf("the predecessor's legacy: %w", p.err)
	}
}

// gone reports whether reading has failed because the predecessor is dead.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
}

func (p *predecessor) fail(reason error) {
	// Never longer than this: whoever fails is about to exit.
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.conn.Send(message{Cmd: cmdFailed, Reason: reason.Error()})
}

// awaitCommit says prepared and waits until the predecessor has handed over. The
// error is errOrphaned, the context's cause, or says what arrived instead.
func (p *predecessor) awaitCommit(ctx context.Context) (Legacy, error) {
	_ = p.conn.Send(message{Cmd: cmdPrepared}) // an error shows in arrived
	select {
	case <-p.arrived:
	case <-ctx.Done():
		return Legacy{}, context.Cause(ctx)
	}
	if p.err != nil {
		return Legacy{}, p.err
	}
	// If it does not arrive, the predecessor is gone, and it has committed.
	_ = p.conn.Send(message{Cmd: cmdAck})
	legacy := p.legacy
	p.legacy = Legacy{}
	return legacy, nil
}

// farewell waits until the predecessor has let go, or has died, and reports whether it
// has named this process to the supervisor before.
func (p *predecessor) farewell() (named bool) {
	defer p.conn.Close()
	for {
		m, err := receive(p.conn)
		if err != nil {
			return named
		}
		named = named || m.Cmd == cmdNamed
	}
}

// takeOutput points standard output and error to where the service's go, and
// goes on reading the pipes that they went to until nobody has them any more.
func (p *predecessor) takeOutput() {
	p.turn.Do(func() {
		for i, to := range []int{p.stdout, p.stderr} {
			if p.pipes[i] == nil {
				continue
			}
			// The Go runtime has taken descriptors 1 and 2 for what they were:
			// blocking.
			_ = unix.SetNonblock(to, false)
			_ = dupTo(to, i+1)
			w := dupFile(to)
			p.copying.Go(func() {
				defer p.pipes[i].Close()
				defer w.Close()
				_, _ = io.Copy(lenient{w}, p.pipes[i])
				copyRest(lenient{w}, p.pipes[i])
			})
		}
	})
}

// close ends what meetPredecessor began. Output of children that were started
// with the pipes and live on is lost from here on.
func (p *predecessor) close() {
	p.conn.Close()
	<-p.arrived
	p.legacy.Close()
	p.legacy = Legacy{}
	for _, r := range p.pipes {
		_ = r.SetReadDeadline(time.Now().Add(lastWords)) // of a nil *os.File does nothing
	}
	p.copying.Wait()
	closeAll(p.pipes[:])
}
