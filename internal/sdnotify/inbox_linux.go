package sdnotify

import (
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

var (
	// ErrNoteTooLong comes with the sender alone.
	ErrNoteTooLong = errors.New("a notification that is too long, of more than 4096 bytes")
	// ErrNoteLost comes with the note, of which descriptors are missing.
	ErrNoteLost = errors.New("descriptors of a notification were lost")
)

// MaxNote is the longest notification that is read, systemd's limit too.
const MaxNote = 4096

// Inbox receives notifications, as a supervisor does. One goroutine reads; the
// other methods may be called from any.
type Inbox struct {
	conn     *net.UnixConn
	buf, oob []byte
}

// NewInbox opens one. Its address is abstract (unix(7)): it needs no directory that
// is writable, and goes with the last process that has it. Everybody in the network
// namespace finds it in /proc/net/unix and can write to it: what a note is worth depends on
// who has sent it.
func NewInbox() (*Inbox, error) {
	name := fmt.Sprintf("@handover/%d/%s", os.Getpid(), rand.Text())
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	return newInbox(conn)
}

// ResumeInbox goes on with one that another process has opened. It owns f.
func ResumeInbox(f *os.File) (*Inbox, error) {
	defer f.Close()
	pc, err := net.FilePacketConn(f)
	if err != nil {
		return nil, fmt.Errorf("take over the notification socket: %w", err)
	}
	conn, ok := pc.(*net.UnixConn)
	if !ok {
		pc.Close()
		return nil, fmt.Errorf("take over the notification socket: it is a %T", pc)
	}
	return newInbox(conn)
}

func newInbox(conn *net.UnixConn) (*Inbox, error) {
	rc, err := conn.SyscallConn()
	if err == nil {
		cerr := rc.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
		err = errors.Join(err, cerr)
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("open the notification socket: %w", err)
	}
	// One byte more tells a note that is too long. The rest holds the sender and as
	// many descriptors as a message can have.
	return &Inbox{conn: conn, buf: make([]byte, MaxNote+1), oob: make([]byte, unix.CmsgSpace(4*253)+unix.CmsgSpace(unix.SizeofUcred))}, nil
}

// Addr is what NOTIFY_SOCKET is to be.
func (in *Inbox) Addr() string { return in.conn.LocalAddr().String() }

// Read waits for the next note; its Done is to be called when it has been acted
// on. With an error that is ErrNoteTooLong or ErrNoteLost reading can go on. While
// halted it returns os.ErrDeadlineExceeded, after Close net.ErrClosed.
func (in *Inbox) Read() (Note, error) {
	n, oobn, flags, _, err := in.conn.ReadMsgUnix(in.buf, in.oob)
	if err != nil {
		return Note{}, err
	}
	return newNote(in.buf[:n], in.oob[:oobn], flags)
}

// Queued is Read without waiting, and past Halt; false when there is none. It may be
// called from any goroutine that knows that no Read is under way.
func (in *Inbox) Queued() (Note, error, bool) {
	n, oobn, flags := 0, 0, 0
	rc, err := in.conn.SyscallConn()
	if err == nil {
		cerr := rc.Control(func(fd uintptr) {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), in.buf, in.oob, unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		})
		err = errors.Join(err, cerr)
	}
	if err != nil {
		return Note{}, nil, false
	}
	note, err := newNote(in.buf[:n], in.oob[:oobn], flags)
	return note, err, true
}

// maxQueued is more than the kernel keeps for one socket (net.unix.max_dgram_qlen: 10, and 512
// with systemd).
const maxQueued = 1024

// Each calls take for every note that has been sent until now, as Queued returns them. It
// comes to an end although somebody goes on sending.
func (in *Inbox) Each(take func(Note, error)) {
	for range maxQueued {
		n, err, ok := in.Queued()
		if !ok {
			return
		}
		take(n, err)
	}
}

// Halt makes a Read that waits return, and every later one, until Unhalt.
func (in *Inbox) Halt() { _ = in.conn.SetReadDeadline(time.Unix(1, 0)) }

// Unhalt lets Read work again.
func (in *Inbox) Unhalt() { _ = in.conn.SetReadDeadline(time.Time{}) }

func newNote(text, oob []byte, flags int) (Note, error) {
	note := open(oob)
	if len(text) > MaxNote {
		note.Done()
		return Note{Pid: note.Pid, UID: note.UID}, ErrNoteTooLong
	}
	note.Text = string(text)
	if flags&unix.MSG_CTRUNC != 0 { // out of descriptors
		return note, ErrNoteLost
	}
	return note, nil
}

// open reads who has sent a message, and what came with it. The descriptors are
// closed on exec (net sets MSG_CMSG_CLOEXEC).
func open(oob []byte) (n Note) {
	n.UID = -1
	msgs, _ := unix.ParseSocketControlMessage(oob)
	for _, m := range msgs {
		if cred, err := unix.ParseUnixCredentials(&m); err == nil {
			n.Pid, n.UID = int(cred.Pid), int(cred.Uid)
		}
		if fds, err := unix.ParseUnixRights(&m); err == nil {
			n.fds = append(n.fds, fds...)
		}
	}
	return n
}

// Done closes what came with the note, which answers a BARRIER=1.
func (n Note) Done() {
	for _, fd := range n.fds {
		unix.Close(fd)
	}
}

// Descriptors is how many came with the note, and are still there.
func (n Note) Descriptors() int { return len(n.fds) }

// Take returns the descriptors that came with the note, which are the caller's then. They
// are closed on exec.
func (n *Note) Take() []int {
	fds := n.fds
	n.fds = nil
	return fds
}

// SyscallConn gives access to the descriptor, to duplicate it or pass it on.
func (in *Inbox) SyscallConn() (syscall.RawConn, error) { return in.conn.SyscallConn() }

// Close closes this process's descriptor.
func (in *Inbox) Close() error { return in.conn.Close() }
