package upgrader

import (
	"fmt"
	"net"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
)

// Socket is a socket, or another open file, under a name. It is kept as a bare
// descriptor, outside Go's poller: a process that holds it for others and never
// accepts must not wake up at every connection. None of the flags that all holders
// share, such as O_NONBLOCK, is changed by holding it.
//
// Its methods may be called from any goroutine.
type Socket struct {
	spec listen.Spec

	mu sync.Mutex
	fd int // -1 when closed
	// A unix socket's file, to remove just this one.
	file    os.FileInfo
	retired bool // Close removes it
	lent    bool // but not now: a process that is being started has it, too
	bound   bool // by this process, not inherited
	// A supervisor has bound it, and this service has it by its name: whatever
	// address is asked for, and the file stays the supervisor's.
	adopted bool
	kept    bool // a file of which the supervisor gets a copy
	// stored is the name under which the supervisor has a copy already, from a process before
	// this one.
	stored string
}

// MakeBlocking clears O_NONBLOCK of a socket that this process has bound, before
// anybody else has it. That is how systemd passes sockets (systemd.socket(5),
// NonBlocking=), and what programs expect that set the flag themselves if they want
// it. It does nothing to a socket that came from somebody else: all who hold it share
// the flag, and may rely on it by now.
func (s *Socket) MakeBlocking() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.bound || s.fd < 0 {
		return nil
	}
	if err := unix.SetNonblock(s.fd, false); err != nil {
		return fmt.Errorf("socket %v: %w", s.spec, os.NewSyscallError("fcntl", err))
	}
	return nil
}

// MakeNonblocking sets O_NONBLOCK, for all who hold the socket, from wherever it came: a
// program that gets it in a message, as Node's do, relies on the flag, and one that
// accepts would otherwise hang in accept(2) when another one was faster.
func (s *Socket) MakeNonblocking() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	if err := unix.SetNonblock(s.fd, true); err != nil {
		return fmt.Errorf("socket %v: %w", s.spec, os.NewSyscallError("fcntl", err))
	}
	return nil
}

// openSocket binds a new socket.
func openSocket(spec listen.Spec) (*Socket, error) {
	fd, err := spec.Bind()
	if err != nil {
		return nil, err
	}
	s := &Socket{spec: spec, fd: fd, bound: true}
	s.remember()
	return s, nil
}

// inheritSocket makes a Socket of a descriptor that came from the predecessor.
// It takes ownership of f.
func inheritSocket(e entry, f *os.File) (*Socket, error) {
	fd, err := listen.DupConn(f)
	f.Close()
	if err == nil && e.Network != listen.KindFile {
		if err = e.Check(fd); err != nil {
			unix.Close(fd)
		}
	}
	if err != nil {
		return nil, fmt.Errorf("inherit socket %v: %w", e.Spec, err)
	}
	s := &Socket{spec: e.Spec, fd: fd, adopted: e.Adopted}
	s.stored = s.storeName()
	s.remember()
	return s, nil
}

func (s *Socket) remember() {
	if s.spec.Unix() && !s.adopted && !strings.HasPrefix(s.spec.Addr, "@") {
		s.file, _ = os.Lstat(s.spec.Addr)
	}
}

// Name is the socket's name.
func (s *Socket) Name() string { return s.spec.Name }

// Addr is the address that the socket is bound to (getsockname(2)), and nil when
// there is none: after Close, and of a file.
func (s *Socket) Addr() net.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	return listen.Addr(s.fd)
}

// Fd is the socket's descriptor, or -1 after Close. It stays the Socket's: to
// start a process with it is fine, to close it or to change its flags is not.
func (s *Socket) Fd() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.fd
}

// Listener returns a listener on the socket, for a process that accepts. It has
// a descriptor of its own; closing it does not close the Socket. It makes the
// socket non-blocking for everybody who has it. If the socket is not one that
// listens, the error wraps ErrKind.
func (s *Socket) Listener() (net.Listener, error) {
	if s.spec.Packet() || s.spec.Network == listen.KindFile {
		return nil, fmt.Errorf("socket %v: %w: it does not listen", s.spec, ErrKind)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, fmt.Errorf("socket %v: %w", s.spec, net.ErrClosed)
	}
	ln, err := listen.Listener(s.fd)
	if err != nil {
		return nil, fmt.Errorf("socket %v: %w", s.spec, err)
	}
	return ln, nil
}

// packets is Listener for a socket that receives packets. Reading begins when
// open is closed.
func (s *Socket) packets(open <-chan struct{}) (net.PacketConn, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, fmt.Errorf("socket %v: %w", s.spec, net.ErrClosed)
	}
	c, err := listen.PacketConn(s.fd, open)
	if err != nil {
		return nil, fmt.Errorf("socket %v: %w", s.spec, err)
	}
	return c, nil
}

// dup is a copy to send or to give away. Where the descriptor is non-blocking it is
// in the poller, so keep it short.
func (s *Socket) dup() (*os.File, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil, fmt.Errorf("socket %v: %w", s.spec, net.ErrClosed)
	}
	f, err := listen.File(s.fd, s.spec.Name)
	if err != nil {
		return nil, fmt.Errorf("socket %v: %w", s.spec, err)
	}
	return f, nil
}

// Close closes this process's copy. Other processes' copies go on.
func (s *Socket) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fd < 0 {
		return nil
	}
	if s.retired && !s.lent {
		s.unlink()
	}
	fd := s.fd
	s.fd = -1
	return unix.Close(fd)
}

// unlink removes the file, once. The caller holds mu.
func (s *Socket) unlink() {
	if s.file == nil {
		return
	}
	if st, err := os.Lstat(s.spec.Addr); err == nil && os.SameFile(st, s.file) {
		os.Remove(s.spec.Addr)
	}
	s.file = nil
}

// lend keeps the file as long as a process may come that serves on. If that has not, and
// the socket was closed meanwhile, the file goes then.
func (s *Socket) lend(on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lent = on
	if !on && s.fd < 0 && s.retired {
		s.unlink()
	}
}

// retire makes Close remove a unix socket's file, if it is still this socket's:
// no other process will serve it.
func (s *Socket) retire() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retired = true
}
