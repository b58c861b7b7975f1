//go:build linux || darwin || freebsd

package wire

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// arrival is one recvmsg: the arguments, and what it returned.
type arrival struct {
	buf, oob []byte
	try      func(fd uintptr) bool // recv, bound once so that a Read allocates nothing

	n, oobn, flags int
	err            error
}

// recv is called by the poller until it returns true.
func (in *arrival) recv(fd uintptr) bool {
	for {
		in.n, in.oobn, in.flags, in.err = recvmsg(int(fd), in.buf, in.oob)
		if in.err != unix.EINTR {
			break
		}
	}
	if in.err != nil {
		in.n, in.oobn, in.flags = 0, 0, 0
	}
	return in.err != unix.EAGAIN
}

// takeFiles returns the descriptors that arrived, for the caller to own. When
// some were lost it closes the rest and returns ErrFilesLost.
func (in *arrival) takeFiles() ([]*os.File, error) {
	fds, err := parseRights(in.oob[:in.oobn])
	if err == nil && in.flags&unix.MSG_CTRUNC == 0 {
		var files []*os.File
		for _, fd := range fds {
			files = append(files, os.NewFile(uintptr(fd), fmt.Sprintf("received descriptor %d", fd)))
		}
		return files, nil
	}
	for _, fd := range fds {
		unix.Close(fd)
	}
	return nil, fmt.Errorf("%w: %d of them came in; is this process at its limit of open files?", ErrFilesLost, len(fds))
}

// parseRights returns the descriptors in a control message buffer (unix(7),
// cmsg(3)), also with an error.
func parseRights(oob []byte) (fds []int, err error) {
	for len(oob) >= unix.CmsgLen(0) {
		hdr, data, rest, err := unix.ParseOneSocketControlMessage(oob)
		if err != nil {
			return fds, err
		}
		m := unix.SocketControlMessage{Header: hdr, Data: data[:len(data)&^3]}
		if got, err := unix.ParseUnixRights(&m); err == nil { // else some other kind of message
			fds = append(fds, got...)
		}
		oob = rest
	}
	return fds, nil
}

// checkChannel returns a *NotChannelError unless fd is a unix stream socket that
// does not listen.
func checkChannel(fd int) error {
	if what := describe(fd); what != "" {
		return &NotChannelError{FD: fd, What: what}
	}
	return nil
}

// describe says what fd is, or "" if it is a channel.
func describe(fd int) string {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "not usable (" + err.Error() + ")"
	}
	switch uint32(st.Mode) & unix.S_IFMT {
	case unix.S_IFSOCK:
	case unix.S_IFIFO:
		return "a pipe"
	case unix.S_IFREG:
		return "a regular file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	default:
		return "an anonymous file"
	}
	// An address family that x/sys does not know makes this fail, too.
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return "a socket of another family (" + err.Error() + ")"
	}
	switch sa.(type) {
	case *unix.SockaddrUnix:
	case *unix.SockaddrInet4, *unix.SockaddrInet6:
		return "an internet socket"
	default:
		return fmt.Sprintf("a socket of another family (%T)", sa)
	}
	typ, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	if err != nil {
		return "not usable (" + err.Error() + ")"
	}
	switch typ {
	case unix.SOCK_STREAM:
	case unix.SOCK_DGRAM:
		return "a unix datagram socket"
	case unix.SOCK_SEQPACKET:
		return "a unix seqpacket socket"
	default:
		return fmt.Sprintf("a unix socket of type %d", typ)
	}
	if v, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && v != 0 {
		return "a listening unix socket"
	}
	if _, err := unix.Getpeername(fd); err == unix.ENOTCONN {
		return "a unix socket without a peer"
	}
	return ""
}
