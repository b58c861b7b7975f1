// Package sdnotify speaks systemd's notification protocol to whatever
// supervises this process: systemd itself, or the anchor, which copies it
// (sd_notify(3)).
package sdnotify

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Env names the environment variable that holds the supervisor's socket.
const Env = "NOTIFY_SOCKET"

// Enabled reports whether there is a supervisor to talk to.
func Enabled() bool { return os.Getenv(Env) != "" }

// Send sends the assignments, such as "READY=1", in one datagram. Without a
// supervisor it does nothing and returns nil.
func Send(assignments ...string) error {
	return send(strings.Join(assignments, "\n"), nil)
}

// Barrier waits until the supervisor has taken in all that was sent before,
// at most for the given time (sd_notify_barrier(3)). A process that names its
// successor and exits must not be gone before that is read.
func Barrier(timeout time.Duration) error {
	if !Enabled() {
		return nil
	}
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	defer r.Close()
	rc, err := w.SyscallConn()
	if err != nil {
		w.Close()
		return fmt.Errorf("notify barrier: %w", err)
	}
	var serr error
	err = rc.Control(func(fd uintptr) {
		serr = send("BARRIER=1", unix.UnixRights(int(fd)))
	})
	w.Close()
	if err := errors.Join(err, serr); err != nil {
		return err
	}
	// The supervisor closes its copy when it gets to it: end of file.
	_ = r.SetReadDeadline(time.Now().Add(timeout))
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("notify barrier: the supervisor did not answer within %v", timeout)
	}
	return nil
}

// send uses sendmsg(2) on an unconnected socket: net.UnixConn can't send
// descriptors on a connected datagram socket.
func send(msg string, oob []byte) error {
	path := os.Getenv(Env)
	if path == "" {
		return nil
	}
	if path[0] != '/' && path[0] != '@' {
		return fmt.Errorf("%s=%q: neither an absolute path nor an abstract address (@…)", Env, path)
	}
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Net: "unixgram"})
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	defer conn.Close()
	rc, err := conn.SyscallConn()
	if err != nil {
		return fmt.Errorf("notify the supervisor: %w", err)
	}
	var serr error
	err = rc.Write(func(fd uintptr) bool {
		serr = unix.Sendmsg(int(fd), []byte(msg), oob, &unix.SockaddrUnix{Name: path}, unix.MSG_DONTWAIT)
		return serr != unix.EAGAIN
	})
	if err := errors.Join(err, serr); err != nil {
		return fmt.Errorf("notify the supervisor at %s: %w", path, err)
	}
	return nil
}
