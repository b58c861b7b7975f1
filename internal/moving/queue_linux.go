package moving

import (
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// room is the size of a queue, which the kernel doubles (socket(7), SO_SNDBUF); it has
// room for one with MaxHeld bytes. See Send.
const room = 4096

// Pair makes a queue: the end that gives and the end that takes. They are the
// caller's to close.
func Pair() (give, take int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_SNDBUF, room); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return -1, -1, os.NewSyscallError("setsockopt", err)
	}
	return p[0], p[1], nil
}

// Queue is a process's access to a queue. Its methods may be called from any
// goroutine.
type Queue struct {
	give, take       *net.UnixConn
	giveRaw, takeRaw syscall.RawConn
}

// Open makes a Queue of copies of a pair's descriptors, which stay the caller's.
func Open(give, take int) (*Queue, error) {
	q := &Queue{}
	for _, end := range []struct {
		fd   int
		conn **net.UnixConn
		raw  *syscall.RawConn
	}{{give, &q.give, &q.giveRaw}, {take, &q.take, &q.takeRaw}} {
		c, err := open(end.fd)
		if err == nil {
			*end.conn = c
			*end.raw, err = c.SyscallConn()
		}
		if err != nil {
			q.Close()
			return nil, fmt.Errorf("moving: descriptor %d: %w", end.fd, err)
		}
	}
	return q, nil
}

func open(fd int) (*net.UnixConn, error) {
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return nil, os.NewSyscallError("getsockopt", err)
	} else if typ != unix.SOCK_SEQPACKET {
		return nil, errors.New("not an end of a queue")
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), "queue")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		return nil, err
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		c.Close()
		return nil, errors.New("not an end of a queue")
	}
	return u, nil
}

// Close closes this process's descriptors of the queue. What is queued stays, if
// anybody else has them.
func (q *Queue) Close() {
	for _, c := range []*net.UnixConn{q.give, q.take} {
		if c != nil {
			c.Close()
		}
	}
}

// Send gives a connection away. It never waits: ErrFull if more than a quarter of the
// room is taken, by three connections or so. A connection that is queued waits, whereas
// one that is not goes on being served by whoever has it. The descriptor stays the
// caller's, who has nothing to do with the connection any more but to close it.
func (q *Queue) Send(fd int, m Message) error {
	if len(m.Held) > MaxHeld {
		return fmt.Errorf("%w: %d bytes read, at most %d can be", ErrMessage, len(m.Held), MaxHeld)
	}
	b, oob := encode(make([]byte, 0, headerLen+len(m.Held)), m), unix.UnixRights(fd)
	var err error
	cerr := q.giveRaw.Control(func(end uintptr) {
		// Not before AwaitRoom would say so.
		if !polls(end, unix.POLLOUT) {
			err = unix.EAGAIN
			return
		}
		for {
			_, err = unix.SendmsgN(int(end), b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
			if err != unix.EINTR {
				return
			}
		}
	})
	switch {
	case cerr != nil:
		return cerr
	case err == unix.EAGAIN || err == unix.ETOOMANYREFS || err == unix.ENOBUFS || err == unix.ENOMEM:
		return fmt.Errorf("%w: %w", ErrFull, err)
	}
	return os.NewSyscallError("sendmsg", err)
}

// AwaitRoom waits until something may fit into the queue. It returns room false when
// that has not happened by the deadline, and waited false when there was room all the
// time: it is another limit that has been reached.
func (q *Queue) AwaitRoom(deadline time.Time) (room, waited bool) {
	_ = q.give.SetWriteDeadline(deadline)
	err := q.giveRaw.Write(func(fd uintptr) bool {
		if waited || polls(fd, unix.POLLOUT) {
			return true
		}
		waited = true
		return false
	})
	return err == nil, waited
}

// polls tells whether a descriptor shows the event now.
func polls(fd uintptr, event int16) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: event}}
	n, _ := unix.Poll(p, 0)
	return n > 0 && p[0].Revents&event != 0
}

// Await waits until a connection is queued, which somebody else may take then, until the
// deadline (os.ErrDeadlineExceeded), or until Close (net.ErrClosed). It returns whether
// it had to wait.
func (q *Queue) Await() (waited bool, err error) {
	err = q.takeRaw.Read(func(fd uintptr) bool {
		if polls(fd, unix.POLLIN|unix.POLLHUP) {
			return true
		}
		waited = true
		return false
	})
	return waited, err
}

// TryReceive takes the next connection, whose descriptor is the caller's then. Without
// anything queued it returns os.ErrDeadlineExceeded, and net.ErrClosed when nobody is
// left who could send. A message that can't be understood is an error that wraps
// ErrMessage; what came with it is closed.
func (q *Queue) TryReceive() (Message, int, error) {
	return receive(func(take func(fd uintptr) bool) error {
		done := false
		if err := q.takeRaw.Control(func(fd uintptr) { done = take(fd) }); err != nil {
			return err
		}
		if !done {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
}

// receive takes one message; access calls what it is given until that returns true.
func receive(access func(func(fd uintptr) bool) error) (m Message, fd int, err error) {
	b := make([]byte, maxHeader+MaxHeld+1)
	oob := make([]byte, unix.CmsgSpace(4))
	var n, oobn, flags int
	var rerr error
	err = access(func(end uintptr) bool {
		for rerr = unix.EINTR; rerr == unix.EINTR; {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(end), b, oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		}
		return rerr != unix.EAGAIN
	})
	if err == nil {
		err = os.NewSyscallError("recvmsg", rerr)
	}
	if err != nil {
		return Message{}, -1, err
	}
	fds := rights(oob[:oobn])
	if n == 0 && len(fds) == 0 {
		return Message{}, -1, net.ErrClosed // nobody holds the other end
	}
	m, err = decode(b[:n])
	switch {
	case err != nil:
	case flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0:
		err = fmt.Errorf("%w: cut short, flags %#x", ErrMessage, flags)
	case len(fds) != 1:
		err = fmt.Errorf("%w: %d descriptors", ErrMessage, len(fds))
	default:
		return m, fds[0], nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return Message{}, -1, err
}

func rights(oob []byte) (fds []int) {
	cmsgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil
	}
	for _, c := range cmsgs {
		more, _ := unix.ParseUnixRights(&c)
		fds = append(fds, more...)
	}
	return fds
}

// SetDeadline is when Await gives up, for one that waits already, too. The zero
// time is never.
func (q *Queue) SetDeadline(t time.Time) { _ = q.take.SetReadDeadline(t) }

// Pending tells whether something is queued.
func (q *Queue) Pending() (some bool) {
	_ = q.takeRaw.Control(func(fd uintptr) { some = polls(fd, unix.POLLIN) })
	return some
}
