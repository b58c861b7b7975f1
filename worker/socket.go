package worker

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/internal/listen"
)

// ErrKind is wrapped where a socket is not of the kind that is asked for: what a
// supervisor has passed under a name, or what Listener, Serve, PacketConn and File
// return. Network says what a socket is.
var ErrKind = listen.ErrKind

// socket is one that the app may serve, or an open file.
type socket struct {
	spec   listen.Spec // without a parent
	kind   string      // what Network says
	fd     int         // until it is taken; -1: not bound yet
	bound  os.FileInfo // without a parent, of a unix socket's file
	taken  bool
	served bool
	// drainer serves it, unless the app does in its own way.
	drainer *drain.Drainer
}

// Network says what the socket of that name is: "tcp", "udp", "unix", "unixgram" or
// "unixpacket", "file" for any other open file, "" when there is none. Listener and
// Serve take tcp, unix and unixpacket, PacketConn udp and unixgram, File all.
func (w *Worker) Network(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	if s, ok := w.sockets[name]; ok {
		return s.kind
	}
	return ""
}

// Listener returns the socket of that name, for an app that serves it in its own
// way (see Ready); usually Serve is what you want. It can be taken once, and is the
// caller's to close. Closing it leaves the parent's socket open, and a unix
// socket's file in place. If it is not a socket that listens, the error wraps
// ErrKind.
func (w *Worker) Listener(name string) (net.Listener, error) {
	return take(w, name, "use PacketConn or File", []string{"tcp", "unix", "unixpacket"}, listen.Listener)
}

// PacketConn returns the socket of that name, of the network udp or unixgram. It can
// be taken once, and is the caller's to close; that leaves the parent's socket open.
// Taken, it counts as served (see Explicit). If it is not a socket that receives
// packets, the error wraps ErrKind.
//
// ReadFrom waits until the worker accepts, as Serve does: a packet that a worker had
// read before could be lost with it. When the drain begins, it returns an error that
// wraps ErrDraining, which the app may return; what is not read then is for another
// worker. WriteTo waits for nothing and works until the socket is closed, so that
// what was read can be answered. What reads in another way, through syscall.Conn, has
// to see to that by itself.
func (w *Worker) PacketConn(name string) (net.PacketConn, error) {
	c, err := take(w, name, "use Serve, Listener or File", []string{"udp", "unixgram"}, func(fd int) (*packets, error) {
		if w.ctx.Err() != nil {
			return nil, ErrDraining
		}
		c, err := listen.PacketConn(fd, w.accept)
		if err != nil {
			return nil, err
		}
		p := &packets{Packets: c, w: w}
		w.packets = append(w.packets, p)
		return p, nil
	})
	if err != nil {
		return nil, err
	}
	w.serves(name)
	return c, nil
}

// packets counts what it reads.
type packets struct {
	*listen.Packets
	w *Worker
}

func (p *packets) ReadFrom(b []byte) (int, net.Addr, error) {
	n, from, err := p.Packets.ReadFrom(b)
	// A parent has to know that this worker has served somebody: see Serve.
	if err == nil && p.w.received.Add(1) == 1 {
		p.w.changed()
	}
	return n, from, err
}

// File returns the open file of that name, whatever it is: with a parent one of its
// set's Config.Sockets, without one what a supervisor has passed under that name
// (LISTEN_FDNAMES, sd_listen_fds_with_names(3)). It can be taken once, and is the
// caller's to close. Taken, it counts as served (see Explicit). Its offset and its
// flags are shared with all who have it (open(2)). A socket that Config.Listen names
// and that nobody has passed is no open file: the error wraps ErrKind.
func (w *Worker) File(name string) (*os.File, error) {
	f, err := take(w, name, "", nil, func(fd int) (*os.File, error) { return listen.File(fd, name) })
	if err != nil {
		return nil, err
	}
	w.serves(name)
	return f, nil
}

// take makes something of the socket of that name, which can be done once. The
// kinds that it may have are nil for a file, which is never bound here.
func take[T any](w *Worker, name, instead string, kinds []string, fn func(fd int) (T, error)) (T, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	var none T
	s, ok := w.sockets[name]
	if !ok && kinds == nil {
		if fd := w.passed.File(name); fd >= 0 {
			s, ok = &socket{fd: fd, kind: listen.KindFile}, true
			w.sockets[name] = s
		}
	}
	switch {
	case !ok:
		return none, fmt.Errorf("worker: no socket %q: this worker has %s", name, w.socketNames())
	case s.taken:
		return none, fmt.Errorf("worker: socket %q is taken already, it can be served once", name)
	case kinds != nil && !slices.Contains(kinds, s.kind):
		return none, fmt.Errorf("worker: socket %q: %w: it is of the network %s, %s", name, ErrKind, s.kind, instead)
	case kinds == nil && s.fd < 0:
		return none, fmt.Errorf("worker: socket %q: %w: it is to be bound, use Serve, Listener or PacketConn", name, ErrKind)
	}
	if s.fd < 0 {
		if err := s.bind(); err != nil {
			return none, fmt.Errorf("worker: socket %q: %w", name, err)
		}
	}
	v, err := fn(s.fd)
	if err != nil {
		return none, fmt.Errorf("worker: socket %q: %w", name, err)
	}
	unix.Close(s.fd) // what was made of it has its own copy
	s.fd, s.taken = -1, true
	return v, nil
}

func (s *socket) bind() (err error) {
	if s.fd, err = s.spec.Bind(); err == nil && s.spec.Unix() {
		s.bound, _ = os.Lstat(s.spec.Addr)
	}
	return err
}

// closeSockets closes what was not taken, and removes the files of unix sockets that
// this process bound, unless they have become somebody else's.
func (w *Worker) closeSockets() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.passed.Close()
	for _, s := range w.sockets {
		if s.fd >= 0 {
			unix.Close(s.fd)
			s.fd, s.taken = -1, true
		}
		if s.bound == nil {
			continue
		}
		now, err := os.Lstat(s.spec.Addr)
		if err == nil && os.SameFile(now, s.bound) && now.ModTime().Equal(s.bound.ModTime()) {
			_ = os.Remove(s.spec.Addr)
		}
	}
}

func (w *Worker) socketNames() string {
	if len(w.sockets) == 0 {
		return "none"
	}
	var names []string
	for n := range w.sockets {
		names = append(names, strconv.Quote(n))
	}
	slices.Sort(names)
	return strings.Join(names, ", ")
}
