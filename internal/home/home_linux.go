package home

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/pipe"
)

// Pair makes a home: the end by which workers report, and the one by which a parent hears
// them. They are the caller's to close.
func Pair() (report, hear int, err error) {
	p, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	if err := unix.SetsockoptInt(p[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1); err != nil {
		unix.Close(p[0])
		unix.Close(p[1])
		return -1, -1, os.NewSyscallError("setsockopt", err)
	}
	return p[0], p[1], nil
}

// end is a process's access to one of the ends.
type end struct {
	f   *os.File
	raw syscall.RawConn
}

// open makes an end of a copy of fd.
func open(fd int) (e end, err error) {
	if typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE); err != nil {
		return e, fmt.Errorf("home: descriptor %d: %w", fd, os.NewSyscallError("getsockopt", err))
	} else if typ != unix.SOCK_SEQPACKET {
		return e, fmt.Errorf("home: descriptor %d is not an end of a home", fd)
	}
	fd, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	if err != nil {
		return e, os.NewSyscallError("fcntl", err)
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return e, os.NewSyscallError("fcntl", err)
	}
	e.f = os.NewFile(uintptr(fd), "home")
	if e.raw, err = e.f.SyscallConn(); err != nil {
		e.f.Close()
	}
	return e, err
}

// Kept reports whether somebody keeps the home whose end to report by is fd.
func Kept(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && (n == 0 || p[0].Revents&(unix.POLLHUP|unix.POLLERR|unix.POLLNVAL) == 0)
}

// Door is a worker's end.
type Door struct{ end }

// OpenDoor makes a Door of a copy of a descriptor.
func OpenDoor(fd int) (*Door, error) {
	e, err := open(fd)
	return &Door{e}, err
}

// Close closes this process's copy.
func (d *Door) Close() error { return d.f.Close() }

// Send sends a report about this process, and the files, by name, which stay the caller's; a
// pidfd it adds. It waits for room, and for as long as this user has too many descriptors on
// their way, until the deadline. The error wraps ErrNobody when nobody keeps the home.
func (d *Door) Send(r Report, files map[string]*os.File, deadline time.Time) error {
	pidfd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return os.NewSyscallError("pidfd_open", err)
	}
	defer unix.Close(pidfd)
	names := slices.Sorted(maps.Keys(files))
	r.Pid, r.Files = os.Getpid(), append(names, Pidfd)
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	var fds []int
	for _, name := range names {
		fd, err := fdOf(files[name])
		if err != nil {
			return fmt.Errorf("home: %s: %w", name, err)
		}
		fds = append(fds, fd)
	}
	oob := unix.UnixRights(append(fds, pidfd)...)
	if err := d.f.SetWriteDeadline(deadline); err != nil {
		return err
	}
	for {
		var serr error
		err := d.raw.Write(func(fd uintptr) bool {
			for {
				_, serr = unix.SendmsgN(int(fd), b, oob, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
				if serr != unix.EINTR {
					return serr != unix.EAGAIN
				}
			}
		})
		switch {
		case err != nil:
			return fmt.Errorf("home: report: %w", err)
		case serr == unix.ETOOMANYREFS && time.Now().Before(deadline):
			time.Sleep(10 * time.Millisecond)
		case serr == unix.EPIPE || serr == unix.ECONNRESET || serr == unix.ECONNREFUSED:
			return fmt.Errorf("%w: %w", ErrNobody, serr)
		default:
			return os.NewSyscallError("sendmsg", serr)
		}
	}
}

// fdOf is a file's descriptor, without what File.Fd does to it.
func fdOf(f *os.File) (fd int, err error) {
	rc, err := f.SyscallConn()
	if err != nil {
		return -1, err
	}
	err = rc.Control(func(n uintptr) { fd = int(n) })
	return fd, err
}

// Abandoned waits until nobody keeps the home any more, and returns false when Leave is
// called first.
func (d *Door) Abandoned() bool {
	// Nothing is ever sent this way, so that there is nothing to read but the end.
	_, err := d.f.Read(make([]byte, 1))
	return err == io.EOF || errors.Is(err, syscall.ECONNRESET)
}

// Leave ends Abandoned.
func (d *Door) Leave() { _ = d.f.SetReadDeadline(time.Unix(1, 0)) } // fails only on a closed file

// Hall is a parent's end. One goroutine calls Next.
type Hall struct {
	end
	buf, oob []byte
}

// OpenHall makes a Hall of a copy of a descriptor.
func OpenHall(fd int) (*Hall, error) {
	e, err := open(fd)
	return &Hall{end: e, buf: make([]byte, maxReport), oob: make([]byte, unix.CmsgSpace(4*maxFiles)+unix.CmsgSpace(unix.SizeofUcred))}, err
}

// Close closes this process's copy, and ends Next.
func (h *Hall) Close() error { return h.f.Close() }

// Halt ends a Next that waits, and every later one, until Unhalt.
func (h *Hall) Halt() { _ = h.f.SetReadDeadline(time.Unix(1, 0)) }

// Unhalt lets Next work again.
func (h *Hall) Unhalt() { _ = h.f.SetReadDeadline(time.Time{}) }

// Next waits for the next report. After an error that wraps ErrReport it can be called
// again. While halted it returns os.ErrDeadlineExceeded, after Close os.ErrClosed.
func (h *Hall) Next() (Arrival, error) { return h.next(true) }

// Queued is Next without waiting; ok is false when nothing has come.
func (h *Hall) Queued() (a Arrival, ok bool, err error) {
	a, err = h.next(false)
	return a, !errors.Is(err, unix.EAGAIN) && !errors.Is(err, io.EOF), err
}

func (h *Hall) next(wait bool) (Arrival, error) {
	var n, oobn, flags int
	var rerr error
	try := func(fd uintptr) bool {
		for {
			n, oobn, flags, _, rerr = unix.Recvmsg(int(fd), h.buf, h.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
			if rerr != unix.EINTR {
				return rerr != unix.EAGAIN
			}
		}
	}
	var err error
	if wait {
		err = h.raw.Read(try)
	} else {
		err = h.raw.Control(func(fd uintptr) { try(fd) })
	}
	switch {
	case err != nil:
		return Arrival{}, err
	case rerr != nil:
		return Arrival{}, os.NewSyscallError("recvmsg", rerr)
	case n == 0 && oobn == 0:
		return Arrival{}, io.EOF
	}
	return arrival(h.buf[:n], h.oob[:oobn], flags)
}

// arrival checks a message, of which nothing stays open with an error.
func arrival(b, oob []byte, flags int) (a Arrival, err error) {
	sender := 0
	var fds []int
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			sender = int(cred.Pid)
		}
		if got, err := unix.ParseUnixRights(&m); err == nil {
			fds = append(fds, got...)
		}
	}
	a.Opened = map[string]*os.File{}
	defer func() {
		for _, fd := range fds {
			unix.Close(fd)
		}
		if err != nil {
			a.Close()
			a.Opened = nil
		}
	}()
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return a, fmt.Errorf("%w: it has not arrived whole: is this process at its limit of open files?", ErrReport)
	}
	if a.Report, err = decode(b, sender); err != nil {
		return a, err
	}
	if len(a.Files) != len(fds) {
		return a, fmt.Errorf("%w: %d descriptors announced, %d here", ErrReport, len(a.Files), len(fds))
	}
	for i, name := range a.Files {
		if a.Opened[name] != nil || !known(name) {
			continue
		}
		own, err := accept(name, fds[i])
		if err != nil {
			return a, fmt.Errorf("%w: process %d, %s: %w", ErrReport, sender, name, err)
		}
		a.Opened[name] = os.NewFile(uintptr(own), name)
	}
	if a.Opened[Channel] == nil || a.Opened[Pidfd] == nil {
		return a, fmt.Errorf("%w: process %d sends neither channel nor pidfd, but %q", ErrReport, sender, a.Files)
	}
	return a, nil
}

// accept makes a descriptor of this process's own of one that came, if it is of the kind that
// it has to be. None of these calls waits, whatever it is.
func accept(name string, fd int) (own int, err error) {
	switch name {
	case Stdout, Stderr:
		return pipe.Own(fd, os.O_RDONLY) // of which the worker can't clear O_NONBLOCK
	case Crash:
		_, err = unix.FcntlInt(uintptr(fd), unix.F_GET_SEALS, 0) // which only memory has
	case Channel:
		err = isChannel(fd)
	}
	if err != nil {
		return -1, fmt.Errorf("it is of another kind: %w", err)
	}
	own, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 3)
	return own, os.NewSyscallError("fcntl", err)
}

func isChannel(fd int) error {
	for option, want := range map[int]int{unix.SO_DOMAIN: unix.AF_UNIX, unix.SO_TYPE: unix.SOCK_STREAM} {
		if have, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, option); err != nil {
			return os.NewSyscallError("getsockopt", err)
		} else if have != want {
			return errors.New("it is no unix stream socket")
		}
	}
	return nil
}

func known(name string) bool {
	return slices.Contains([]string{Channel, Pidfd, Crash, Stdout, Stderr}, name)
}
