package anchor

import (
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// done closes what came with the note, which answers a BARRIER=1.
func (n note) done() {
	for _, fd := range n.fds {
		unix.Close(fd)
	}
}

// maxNote is the longest notification that is read, systemd's limit too.
const maxNote = 4096

// inbox receives notifications.
type inbox struct {
	addr  string
	conn  *net.UnixConn
	notes chan note
	log   *slog.Logger
	quit  chan struct{}
	done  chan struct{}
}

func newInbox(log *slog.Logger) (*inbox, error) {
	// An abstract address needs no directory that is writable and goes with the
	// process. Everybody in the network namespace can write to it, so that only
	// the kernel's word on the sender counts.
	name := fmt.Sprintf("@handover/%d/%s", os.Getpid(), rand.Text())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	rc, err := conn.SyscallConn()
	if err == nil {
		cerr := rc.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
		})
		if err == nil {
			err = cerr
		}
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	in := &inbox{addr: name, conn: conn, notes: make(chan note), log: log, quit: make(chan struct{}), done: make(chan struct{})}
	go in.run()
	return in, nil
}

func (in *inbox) run() {
	defer close(in.done)
	// One byte more tells a note that is too long. The rest holds the sender and
	// as many descriptors as a message can have.
	buf, oob := make([]byte, maxNote+1), make([]byte, 4096)
	for {
		n, oobn, flags, _, err := in.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			if !errors.Is(err, net.ErrClosed) {
				in.log.Error("no notification is received any more", "error", err)
			}
			return
		}
		nt := open(oob[:oobn])
		switch {
		case n > maxNote:
			in.log.Warn("a notification that is too long: ignored", "from", nt.pid, "limit", maxNote)
		case flags&unix.MSG_CTRUNC != 0:
			// Out of descriptors: those that did arrive are closed as ever.
			in.log.Warn("descriptors of a notification were lost", "from", nt.pid)
			fallthrough
		default:
			nt.parse(string(buf[:n]))
		}
		select {
		case in.notes <- nt:
		case <-in.quit:
			nt.done()
			return
		}
	}
}

// open reads who has sent a message, and what came with it. The descriptors are
// closed on exec (net sets MSG_CMSG_CLOEXEC).
func open(oob []byte) (n note) {
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			n.pid = int(cred.Pid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			n.fds = append(n.fds, fds...)
		}
	}
	return n
}

func (in *inbox) close() {
	close(in.quit)
	in.conn.Close()
	<-in.done
}

// descendant reports whether a process descends from this one.
func descendant(pid int) bool {
	self := os.Getpid()
	for range 64 { // deeper is not one that anybody should name
		switch pid = parentOf(pid); pid {
		case self:
			return true
		case 0, 1:
			return false
		}
	}
	return false
}

// parentOf is the pid of a process's parent, or 0 (/proc/pid/stat, proc(5)).
func parentOf(pid int) int {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	// pid (name) state ppid …, where the name can hold anything.
	rest := string(b[max(0, strings.LastIndexByte(string(b), ')')):])
	if f := strings.Fields(rest); len(f) > 2 {
		ppid, _ := strconv.Atoi(f[2])
		return ppid
	}
	return 0
}
