package upgrader

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/listen"
)

// Open returns the socket of that name: the predecessor's, a supervisor's, or one
// that it binds. Networks are tcp, tcp4, tcp6, udp, udp4, udp6, unix, unixgram and
// unixpacket; addresses are as for net.Listen and net.ListenPacket. Another address
// or network than the predecessor used under the same name opens a new socket; the
// same address under another name is the same socket.
//
// A supervisor's socket (LISTEN_FDS, sd_listen_fds_with_names(3)) is found by its
// name, in LISTEN_FDNAMES, and is taken whatever its address is; but if it is of
// another kind than the network, the error wraps ErrKind. Where no socket has the
// name, one with the very address is taken. It keeps its name in later generations.
// The file of a unix socket that a supervisor has bound is never removed.
//
// A name can be opened once in a process, by Open, Listen, Packet, File or KeptFile. Call it
// before Ready: a successor that is being started may not get what is opened later.
// The Socket is the Upgrader's, which closes it in Stop.
func (u *Upgrader) Open(name, network, addr string) (*Socket, error) {
	spec := listen.Spec{Name: name, Network: network, Addr: addr}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.vacant(spec); err != nil {
		return nil, err
	}
	s, err := u.find(spec)
	if s == nil && err == nil {
		if s, err = openSocket(spec); errors.Is(err, syscall.EADDRINUSE) && u.renamed(spec) != nil {
			s, err = u.renamed(spec), nil
		}
	}
	if err != nil {
		return nil, err
	}
	u.keep(s, spec)
	return s, nil
}

// vacant says why nothing can be opened under spec's name.
func (u *Upgrader) vacant(spec listen.Spec) error {
	if u.phase == phaseReplaced || u.phase == phaseStopped {
		return fmt.Errorf("open socket %v: %w", spec, ErrStopped)
	}
	if s, ok := u.sockets[spec.Name]; ok {
		return fmt.Errorf("open socket %v: the name is taken already by %v", spec, s.spec)
	}
	return nil
}

// find looks for a socket that is there already. It returns nil if there is none.
func (u *Upgrader) find(spec listen.Spec) (*Socket, error) {
	if s, ok := u.inherited[spec]; ok {
		return s, nil
	}
	if s := u.adopted(spec.Name); s != nil {
		if err := spec.Check(s.Fd()); err != nil {
			return nil, fmt.Errorf("open socket %v: what a supervisor has passed under that name: %w", spec, err)
		}
		return s, nil
	}
	fd, bound := u.passed.Stored(spec), true
	stored := fd >= 0
	if !stored {
		var err error
		if fd, bound, err = u.passed.Socket(spec); err != nil {
			return nil, fmt.Errorf("open socket %v: %w", spec, err)
		}
	}
	if fd < 0 {
		return nil, nil
	}
	s := &Socket{spec: spec, fd: fd, adopted: !bound}
	if stored {
		s.stored = s.storeName()
	}
	s.remember()
	return s, nil
}

// adopted is an inherited socket that a supervisor has passed under that name, to
// this process or to one before it.
func (u *Upgrader) adopted(name string) *Socket {
	for was, s := range u.inherited {
		if s.adopted && was.Name == name {
			return s
		}
	}
	return nil
}

// renamed is an inherited socket that has the address and another name. While the
// predecessor holds it nobody can bind the address, so a new name would otherwise
// take a restart.
func (u *Upgrader) renamed(spec listen.Spec) *Socket {
	for was, s := range u.inherited {
		if was.Network == spec.Network && was.Addr == spec.Addr {
			return s
		}
	}
	return nil
}

// keep makes s the socket of spec's name.
func (u *Upgrader) keep(s *Socket, spec listen.Spec) {
	delete(u.inherited, s.spec)
	s.spec = spec
	u.sockets[spec.Name] = s
}

// Listen is Open for a process that accepts by itself. The network is one of tcp,
// unix and unixpacket. Closing the listener, which is the caller's, leaves the
// socket open for the successor. In a process that an upgrade started, Accept waits
// until Ready has made it the one that decides: what it accepted before that would
// be lost with it if the upgrade failed.
func (u *Upgrader) Listen(name, network, addr string) (net.Listener, error) {
	if spec := (listen.Spec{Name: name, Network: network, Addr: addr}); spec.Packet() {
		return nil, fmt.Errorf("socket %v: %w: it does not listen, use Packet", spec, ErrKind)
	}
	s, err := u.Open(name, network, addr)
	if err != nil {
		return nil, err
	}
	ln, err := s.Listener()
	if err != nil {
		return nil, err
	}
	l := newListener(ln, u.decided)
	if u.pred == nil {
		l.decided = always
	}
	l.name = name
	return l, nil
}

// Packet is Listen for the networks udp and unixgram: it returns the inherited
// socket of that name, or binds it. Closing it leaves the socket open for the
// successor. In a process that an upgrade started, ReadFrom waits until Ready has
// made it the one that decides: a packet that it had read before would be lost with
// it if the upgrade failed. WriteTo does not wait.
//
// The processes before and after an upgrade share the socket and what is queued
// there. When this one has been replaced, end its reading with a read deadline in
// the past, answer what was read, and close it; what is not read is the successor's.
// What reads in another way than by ReadFrom, through syscall.Conn, has to wait for
// Ready by itself.
func (u *Upgrader) Packet(name, network, addr string) (net.PacketConn, error) {
	spec := listen.Spec{Name: name, Network: network, Addr: addr}
	if err := spec.Validate(); err != nil {
		return nil, err
	}
	if !spec.Packet() {
		return nil, fmt.Errorf("socket %v: %w: it does not receive packets, use Listen", spec, ErrKind)
	}
	s, err := u.Open(name, network, addr)
	if err != nil {
		return nil, err
	}
	if u.pred == nil {
		return s.packets(always)
	}
	return s.packets(u.decided)
}

// always is closed.
var always = func() <-chan struct{} { c := make(chan struct{}); close(c); return c }()

// File returns the open file of that name: the predecessor's, the one that a
// supervisor has passed under that name, or what open returns, which is called only
// when there is none. It may be anything that has a descriptor: a log, a lock, a
// socket of another kind.
//
// The file that File returns is the caller's to close; the successor inherits
// another copy. All copies share one offset, one set of flags and one flock(2)
// (open(2)), also before the commit: do not read from what a predecessor still
// reads.
func (u *Upgrader) File(name string, open func() (*os.File, error)) (*os.File, error) {
	return u.file(name, false, open)
}

// KeptFile is File for one without a name in the file system, which would be lost with the
// last process that has it: the supervisor gets a copy, too, if it keeps descriptors
// (FDSTORE in sd_notify(3), or Anchor), so that the process that is started after this one's
// death has it.
func (u *Upgrader) KeptFile(name string, open func() (*os.File, error)) (*os.File, error) {
	return u.file(name, true, open)
}

func (u *Upgrader) file(name string, kept bool, open func() (*os.File, error)) (*os.File, error) {
	if err := listen.CheckName(name); err != nil {
		return nil, fmt.Errorf("file %w", err)
	}
	spec := listen.Spec{Name: name, Network: listen.KindFile}
	f, err := u.inheritFile(spec, kept)
	if f != nil || err != nil {
		return f, err
	}
	if f, err = open(); err != nil {
		return nil, fmt.Errorf("open file %q: %w", name, err)
	}
	fd, err := listen.DupConn(f)
	if err != nil {
		f.Close()
		return nil, fmt.Errorf("open file %q: %w", name, err)
	}
	s := &Socket{spec: spec, fd: fd, kept: kept}
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.vacant(spec); err != nil { // meanwhile
		f.Close()
		s.Close()
		return nil, err
	}
	u.keep(s, spec)
	return f, nil
}

// inheritFile returns nil if there is none to inherit.
func (u *Upgrader) inheritFile(spec listen.Spec, kept bool) (*os.File, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if err := u.vacant(spec); err != nil {
		return nil, err
	}
	s := u.inherited[spec]
	if s == nil {
		s = u.adopted(spec.Name)
	}
	if s == nil && kept {
		if fd := u.passed.File(spec.StoreName()); fd >= 0 {
			s = &Socket{spec: spec, fd: fd, stored: spec.StoreName()}
		}
	}
	if s == nil {
		fd := u.passed.File(spec.Name)
		if fd < 0 {
			return nil, nil
		}
		s = &Socket{spec: spec, fd: fd, adopted: true}
	}
	f, err := s.dup()
	if err != nil {
		return nil, err
	}
	s.kept = kept
	u.keep(s, spec)
	return f, nil
}

// Stored takes over what the supervisor has kept under names that begin with the prefix, and
// that a process had given it which has died (FDSTORE in sd_notify(3)). The files are the
// caller's. Who gives the supervisor something to keep makes it forget that in the end.
func (u *Upgrader) Stored(prefix string) (files []NamedFile) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, d := range slices.Clone(u.passed) {
		if strings.HasPrefix(d.Name, prefix) {
			files = append(files, NamedFile{Name: d.Name, File: os.NewFile(uintptr(u.passed.File(d.Name)), d.Name)})
		}
	}
	return files
}

// Dropped takes over the sockets and files that the predecessor had and that this
// process did not open. Whoever calls it closes them, when nobody serves them any
// more, or Stop does; if nobody calls it, Ready does. Until then the next process can have
// them. To close one once this process decides removes a unix socket's file, if it is
// during an upgrade only when that has failed.
func (u *Upgrader) Dropped() []*Socket {
	u.mu.Lock()
	defer u.mu.Unlock()
	list := slices.Collect(maps.Values(u.inherited))
	clear(u.inherited)
	u.dropped = append(u.dropped, list...)
	return list
}
