package anchor

import (
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// note is one notification, with its sender as the kernel knows it.
type note struct {
	pid  int
	text string
	fds  []int
}

// done closes what came with the note, which answers a BARRIER=1.
func (n note) done() {
	for _, fd := range n.fds {
		unix.Close(fd)
	}
}

// has reports whether one of the note's lines is this one.
func (n note) has(line string) bool {
	return slices.Contains(strings.Split(n.text, "\n"), line)
}

// mainPid is what the note says of MAINPID, or 0.
func (n note) mainPid() int {
	for line := range strings.Lines(n.text) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "MAINPID="); ok {
			pid, _ := strconv.Atoi(v)
			return pid
		}
	}
	return 0
}

// inbox receives notifications.
type inbox struct {
	addr  string
	conn  *net.UnixConn
	notes chan note
	quit  chan struct{}
	done  chan struct{}
}

func newInbox() (*inbox, error) {
	// An abstract address needs no directory that is writable and goes with the
	// process.
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
	in := &inbox{addr: name, conn: conn, notes: make(chan note), quit: make(chan struct{}), done: make(chan struct{})}
	go in.run()
	return in, nil
}

func (in *inbox) run() {
	defer close(in.done)
	buf, oob := make([]byte, 4096), make([]byte, 4096)
	for {
		n, oobn, _, _, err := in.conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		nt := note{text: string(buf[:n])}
		msgs, _ := unix.ParseSocketControlMessage(oob[:oobn])
		for _, m := range msgs {
			if cred, err := unix.ParseUnixCredentials(&m); err == nil {
				nt.pid = int(cred.Pid)
			}
			if fds, err := unix.ParseUnixRights(&m); err == nil {
				nt.fds = append(nt.fds, fds...)
			}
		}
		select {
		case in.notes <- nt:
		case <-in.quit:
			nt.done()
			return
		}
	}
}

func (in *inbox) close() {
	close(in.quit)
	in.conn.Close()
	<-in.done
}
