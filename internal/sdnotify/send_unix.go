//go:build unix

package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// send sends one datagram, with a copy of f's descriptor if f is not nil.
func send(msg string, f *os.File, deadline time.Time) error {
	addr, err := address()
	if addr == "" || err != nil {
		return err
	}
	fail := func(err error) error { return fmt.Errorf("notify the supervisor at %s: %w", addr, err) }
	// Connected, since only then the poller learns that a full queue has room
	// again. net.UnixConn can't send descriptors on a connected datagram socket,
	// sendmsg(2) can.
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: addr, Net: "unixgram"})
	if err != nil {
		return fail(err)
	}
	defer conn.Close()
	var oob []byte
	if f != nil {
		frc, err := f.SyscallConn()
		if err == nil {
			err = frc.Control(func(fd uintptr) { oob = unix.UnixRights(int(fd)) })
		}
		if err != nil {
			return fail(err)
		}
	}
	rc, err := conn.SyscallConn()
	if err != nil {
		return fail(err)
	}
	var serr error
	try := func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), []byte(msg), oob, nil, unix.MSG_DONTWAIT)
		return serr != unix.EAGAIN
	}
	// Once in any case: what need not wait is sent however late it is.
	sent := false
	if err = rc.Control(func(fd uintptr) { sent = try(fd) }); err == nil && !sent {
		_ = conn.SetWriteDeadline(deadline)
		err = rc.Write(try)
	}
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return fail(ErrTimeout)
	case err != nil:
		return fail(err)
	case serr != nil:
		return fail(os.NewSyscallError("sendmsg", serr))
	}
	return nil
}
