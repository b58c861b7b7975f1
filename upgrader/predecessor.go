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

// envSuccession holds the first of three descriptors in a process that an
// upgrade started: the succession, the service's standard output, its error.
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
	sockets        map[listen.Spec]*Socket
	stdout, stderr int

	readers []NamedFile // of the pipes that this process's output went to
	copying sync.WaitGroup
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
	for i := range 3 {
		if _, err := unix.FcntlInt(uintptr(fd+i), unix.F_GETFD, 0); err != nil {
			return nil, fmt.Errorf("%s=%q: descriptor %d: %w", envSuccession, v, fd+i, err)
		}
		syscall.CloseOnExec(fd + i)
	}
	conn, err := wire.NewConn(os.NewFile(uintptr(fd), "succession"))
	if err != nil {
		return nil, fmt.Errorf("%s=%q: %w", envSuccession, v, err)
	}
	p := &predecessor{conn: conn, sockets: map[listen.Spec]*Socket{}, stdout: fd + 1, stderr: fd + 2}
	if err := p.inherit(); err != nil {
		p.fail(err)
		conn.Close()
		return nil, err
	}
	return p, nil
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
				for _, f := range files[i+1:] {
					f.Close()
				}
				return err
			}
			p.sockets[s.spec] = s
		}
		p.generation = m.Generation
		more = m.More
	}
	return p.conn.Send(message{Cmd: cmdHello, Version: successionVersion, MinVersion: 1})
}

func (p *predecessor) fail(reason error) {
	// Never longer than this: whoever fails is about to exit.
	_ = p.conn.SetWriteDeadline(time.Now().Add(time.Second))
	_ = p.conn.Send(message{Cmd: cmdFailed, Reason: reason.Error()})
}

// awaitCommit says prepared and waits until the predecessor has handed over.
func (p *predecessor) awaitCommit(ctx context.Context) (Legacy, error) {
	if err := p.conn.Send(message{Cmd: cmdPrepared}); err != nil {
		return Legacy{}, errOrphaned
	}
	stop := context.AfterFunc(ctx, func() { _ = p.conn.SetReadDeadline(time.Now()) })
	defer stop()
	legacy, err := receiveLegacy(p.conn)
	switch {
	case err == nil:
		p.readers, legacy.Files = splitReaders(legacy.Files)
		// If it does not arrive, the predecessor is gone, and it has committed.
		_ = p.conn.Send(message{Cmd: cmdAck})
		return legacy, nil
	case ctx.Err() != nil:
		return Legacy{}, ctx.Err()
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.Is(err, syscall.ECONNRESET):
		return Legacy{}, errOrphaned
	}
	return Legacy{}, fmt.Errorf("the predecessor's legacy: %w", err)
}

// Names of the files in a legacy that are this package's own: the read ends of
// the pipes that a new program's output goes to.
const (
	fileStdout = "handover:stdout"
	fileStderr = "handover:stderr"
)

func splitReaders(files []NamedFile) (readers, rest []NamedFile) {
	for _, f := range files {
		if f.Name == fileStdout || f.Name == fileStderr {
			readers = append(readers, f)
		} else {
			rest = append(rest, f)
		}
	}
	return readers, rest
}

// takeOver points standard output and error to where the service's go, and goes
// on reading the pipes that they went to until nobody has them any more.
func (p *predecessor) takeOver() {
	_ = unix.Dup3(p.stdout, 1, 0)
	_ = unix.Dup3(p.stderr, 2, 0)
	for _, r := range p.readers {
		to := os.Stdout
		if r.Name == fileStderr {
			to = os.Stderr
		}
		p.copying.Go(func() { _, _ = io.Copy(lenient{to}, r.File) })
	}
	p.conn.Close()
}

// close ends what takeOver began.
func (p *predecessor) close() {
	for _, r := range p.readers {
		r.File.Close()
	}
	p.copying.Wait()
}
