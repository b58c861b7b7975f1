package moving

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/fault"
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
	if err := m.check(); err != nil {
		return err
	}
	fds := []int{fd}
	if m.inFile() {
		file, err := writeState(m.State)
		if err != nil {
			return err
		}
		defer unix.Close(file)
		fds = append(fds, file)
	}
	err := q.send(encode(make([]byte, 0, headerLen+len(m.Held)+min(len(m.State), MaxHeld)), m), fds)
	if err == nil {
		fault.Point(fault.MoveGiven)
	}
	return err
}

func (q *Queue) send(b []byte, fds []int) error {
	oob := unix.UnixRights(fds...)
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

// TryReceive takes the next connection, whose descriptor is the caller's then, if it is of
// that kind; of another, it is ErrKind, and the connection stays where it is. Without
// anything queued it returns os.ErrDeadlineExceeded, and net.ErrClosed when nobody is
// left who could send. A message that can't be understood is an error that wraps
// ErrMessage; what came with it is closed.
func (q *Queue) TryReceive(want Kind) (Message, int, error) {
	var head [headerLen]byte
	switch n, _, err := q.recvmsg(head[:], nil, unix.MSG_PEEK|unix.MSG_TRUNC); {
	case err != nil:
		return Message{}, -1, err
	case other(kindOf(head[:min(n, headerLen)], n), want):
		return Message{}, -1, ErrKind
	}
	b, fds, err := q.receive()
	if err != nil {
		return Message{}, -1, err
	}
	// Somebody else may have taken what was the next one.
	if other(kindOf(b, len(b)), want) {
		return Message{}, -1, errors.Join(ErrKind, q.handBack(b, fds))
	}
	m, file, err := decode(b)
	switch {
	case err != nil:
	case file > 0 && len(fds) == 2:
		m.State, err = readState(fds[1], file)
		unix.Close(fds[1])
		fds = fds[:1]
	case len(fds) != 1 || file > 0:
		err = fmt.Errorf("%w: %d descriptors", ErrMessage, len(fds))
	}
	if err != nil {
		closeAll(fds)
		return Message{}, -1, err
	}
	fault.Point(fault.MoveTaken)
	return m, fds[0], nil
}

func other(have, want Kind) bool { return have != unknown && have != want }

// Next names the next connection: as long as it is the same, nobody has taken it. It is 0
// if there is none.
func (q *Queue) Next() (id uint64) {
	// A descriptor that came by a look is a copy.
	oob := make([]byte, unix.CmsgSpace(4*2))
	_, fds, err := q.recvmsg(nil, oob, unix.MSG_PEEK)
	defer closeAll(fds)
	if err != nil || len(fds) == 0 {
		return 0
	}
	var st unix.Stat_t
	if unix.Fstat(fds[0], &st) != nil {
		return 0
	}
	return st.Ino
}

// Rotate takes the next connection, of whatever kind, and queues it again behind the
// others, so that it does not keep them from who could serve them.
func (q *Queue) Rotate() error {
	b, fds, err := q.receive()
	if err != nil {
		return err
	}
	return q.handBack(b, fds)
}

// backTime is how long a connection that is handed back may find no room.
const backTime = time.Second

// handBack queues again what was taken.
func (q *Queue) handBack(b []byte, fds []int) error {
	defer closeAll(fds)
	for end := time.Now().Add(backTime); ; {
		err := q.send(b, fds)
		if !errors.Is(err, ErrFull) {
			return err
		}
		if time.Now().After(end) {
			return fmt.Errorf("%w: of another kind, and there is no room to hand it back: %w", ErrMessage, err)
		}
		time.Sleep(time.Millisecond)
	}
}

// receive takes one message.
func (q *Queue) receive() (b []byte, fds []int, err error) {
	b = make([]byte, maxHeader+MaxHeld+1)
	n, fds, err := q.recvmsg(b, make([]byte, unix.CmsgSpace(4*2)), 0)
	switch {
	case err != nil && !errors.Is(err, ErrMessage):
		return nil, nil, err
	case err == nil && n == 0 && len(fds) == 0:
		return nil, nil, net.ErrClosed // nobody holds the other end
	case err == nil && n == len(b):
		err = fmt.Errorf("%w: it is longer than %d bytes", ErrMessage, n-1)
	}
	if err != nil {
		closeAll(fds)
		return nil, nil, err
	}
	return b[:n], fds, nil
}

// recvmsg is recvmsg(2), which does not wait. A message that is cut short is ErrMessage,
// unless it is only looked at.
func (q *Queue) recvmsg(b, oob []byte, flag int) (n int, fds []int, err error) {
	var oobn, flags int
	cerr := q.takeRaw.Control(func(end uintptr) {
		for err = unix.EINTR; err == unix.EINTR; {
			n, oobn, flags, _, err = unix.Recvmsg(int(end), b, oob, flag|unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		}
	})
	switch {
	case cerr != nil:
		return 0, nil, cerr
	case err == unix.EAGAIN:
		return 0, nil, os.ErrDeadlineExceeded
	case err != nil:
		return 0, nil, os.NewSyscallError("recvmsg", err)
	}
	fds = rights(oob[:oobn])
	if flag&unix.MSG_PEEK == 0 && flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		err = fmt.Errorf("%w: cut short, flags %#x", ErrMessage, flags)
	}
	return n, fds, err
}

// writeState makes a file in memory of a state.
func writeState(state []byte) (int, error) {
	fd, err := unix.MemfdCreate("state", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("%w: %w", ErrFull, os.NewSyscallError("memfd_create", err))
	}
	for off := 0; off < len(state); {
		n, err := unix.Pwrite(fd, state[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			unix.Close(fd)
			return -1, fmt.Errorf("%w: %w", ErrFull, os.NewSyscallError("pwrite", err))
		}
		off += n
	}
	return fd, nil
}

// readState reads a state of that size, which decode has checked.
func readState(fd, size int) ([]byte, error) {
	b := make([]byte, size)
	for off := 0; off < size; {
		n, err := unix.Pread(fd, b[off:], int64(off))
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return nil, fmt.Errorf("%w: %d of %d bytes of state: %w", ErrMessage, off, size, cmp.Or(os.NewSyscallError("pread", err), io.ErrUnexpectedEOF))
		}
		off += n
	}
	return b, nil
}

func closeAll(fds []int) {
	for _, fd := range fds {
		unix.Close(fd)
	}
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
