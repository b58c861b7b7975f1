package moving

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The tests of this file count descriptors, so none runs beside another.

// pair makes a queue and opens it. At the end as many descriptors must be open as now.
func pair(t *testing.T) (p [2]int, q *Queue) {
	t.Helper()
	before := descriptors(t)
	t.Cleanup(func() {
		if after := descriptors(t); len(after) != len(before) {
			t.Errorf("descriptors were %v, are %v", before, after)
		}
	})
	give, take, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	if q, err = Open(give, take); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { q.Close(); unix.Close(give); unix.Close(take) })
	return [2]int{give, take}, q
}

// descriptors lists those that are open: what each is, so that a leak has a name.
func descriptors(t *testing.T) (open []string) {
	t.Helper()
	const dir = "/proc/self/fd/"
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if to, err := os.Readlink(dir + e.Name()); err == nil { // not ReadDir's own
			open = append(open, e.Name()+" "+to)
		}
	}
	return open
}

// connection is a TCP connection: the client's end, and a descriptor of the server's.
func connection(t *testing.T) (*net.TCPConn, int) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	client, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	server, err := ln.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	fd := -1
	control(t, server.(syscall.Conn), func(s int) { fd, err = unix.FcntlInt(uintptr(s), unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return client.(*net.TCPConn), fd
}

func control(t *testing.T, c syscall.Conn, f func(fd int)) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err == nil {
		err = raw.Control(func(fd uintptr) { f(int(fd)) })
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A connection arrives with all that was sent with it, works, does not block and is
// not inherited.
func TestQueue(t *testing.T) {
	_, q := pair(t)
	for _, n := range []int{0, 3, MaxHeld} {
		client, fd := connection(t)
		m := Message{Idle: time.Minute, Post: n == 3, Held: bytes.Repeat([]byte("h"), n)}
		if q.Pending() {
			t.Error("something is pending")
		}
		if err := q.Send(fd, m); err != nil {
			t.Fatal(err)
		}
		if !q.Pending() {
			t.Error("nothing is pending")
		}
		got, gotFD, err := q.Receive()
		if err != nil || !got.equal(m) {
			t.Fatalf("%+v, %v", got, err)
		}
		if fl, _ := unix.FcntlInt(uintptr(gotFD), unix.F_GETFL, 0); fl&unix.O_NONBLOCK == 0 {
			t.Error("it would block")
		}
		if fl, _ := unix.FcntlInt(uintptr(gotFD), unix.F_GETFD, 0); fl&unix.FD_CLOEXEC == 0 {
			t.Error("it would be inherited")
		}
		f := os.NewFile(uintptr(gotFD), "connection")
		io.WriteString(f, "hello")
		_ = unix.Shutdown(gotFD, unix.SHUT_WR)
		f.Close()
		if b, err := io.ReadAll(client); string(b) != "hello" || err != nil {
			t.Errorf("read %q, %v", b, err)
		}
	}
	if err := q.Send(0, Message{Held: make([]byte, MaxHeld+1)}); !errors.Is(err, ErrMessage) {
		t.Errorf("too much is held: %v", err)
	}
	if err := q.Send(1<<20, Message{}); !errors.Is(err, unix.EBADF) || errors.Is(err, ErrFull) {
		t.Errorf("no descriptor: %v", err)
	}
	if q.Pending() {
		t.Error("what was refused is pending")
	}
}

// Neither end of a queue blocks or is inherited, nor do Open's copies.
func TestFlags(t *testing.T) {
	p, q := pair(t)
	fds := p[:]
	for _, c := range []syscall.Conn{q.give, q.take} {
		control(t, c, func(fd int) { fds = append(fds, fd) })
	}
	for _, fd := range fds {
		fl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
		fdfl, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
		if fl&unix.O_NONBLOCK == 0 || fdfl&unix.FD_CLOEXEC == 0 {
			t.Errorf("%v: flags %#x, %#x", fds, fl, fdfl)
		}
	}
}

// A queue that is full says so, and that there is room again.
func TestFull(t *testing.T) {
	p, q := pair(t)
	if err := unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	_, fd := connection(t)
	var err error
	sent := 0
	for err = q.Send(fd, Message{}); err == nil; err = q.Send(fd, Message{}) {
		sent++
	}
	if sent == 0 || !errors.Is(err, ErrFull) {
		t.Fatalf("after %d messages: %v", sent, err)
	}
	q.AwaitRoom(time.Now()) // returns
	room := make(chan struct{})
	go func() { q.AwaitRoom(time.Time{}); close(room) }()
	for range sent {
		select {
		case <-room: // it may take fewer
		default:
		}
		_, got, err := q.Receive()
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(got)
	}
	<-room
	if err := q.Send(fd, Message{}); err != nil {
		t.Errorf("there is room: %v", err)
	}
	q.AwaitRoom(time.Time{}) // returns at once
}

// Whoever waits for room does not wait longer than until Close.
func TestRoomClosed(t *testing.T) {
	p, q := pair(t)
	if err := unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 4096); err != nil {
		t.Fatal(err)
	}
	_, fd := connection(t)
	for q.Send(fd, Message{}) == nil {
	}
	room := make(chan struct{})
	go func() { q.AwaitRoom(time.Time{}); close(room) }()
	q.Close()
	<-room
	if err := q.Send(fd, Message{}); !errors.Is(err, net.ErrClosed) {
		t.Errorf("send: %v", err)
	}
	if q.Pending() {
		t.Error("something is pending in what is closed")
	}
}

// Receive ends when it has to, also if it has begun before.
func TestReceiveEnds(t *testing.T) {
	_, q := pair(t)
	end := make(chan error)
	receive := func() {
		_, fd, err := q.Receive()
		if err == nil {
			unix.Close(fd)
		}
		end <- err
	}
	for range 10 { // whether it has begun or not
		go receive()
		q.SetDeadline(time.Unix(1, 0))
		if err := <-end; !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("deadline: %v", err)
		}
		q.SetDeadline(time.Time{})
	}
	_, fd := connection(t)
	go receive()
	if err := q.Send(fd, Message{Held: []byte("x")}); err != nil {
		t.Fatal(err)
	}
	if err := <-end; err != nil {
		t.Errorf("after deadlines: %v", err)
	}
	go receive()
	q.Close()
	if err := <-end; !errors.Is(err, net.ErrClosed) {
		t.Errorf("close: %v", err)
	}
}

// A queue whose giving ends are all closed ends when it is empty.
func TestGiversGone(t *testing.T) {
	before := len(descriptors(t))
	give, take, err := Pair()
	if err != nil {
		t.Fatal(err)
	}
	q, err := Open(give, take)
	if err != nil {
		t.Fatal(err)
	}
	if err := q.Send(give, Message{Held: []byte("left")}); err != nil {
		t.Fatal(err)
	}
	unix.Close(give)
	q.give.Close()
	m, fd, err := q.Receive() // the giving end itself: the queue's last one
	if err != nil || string(m.Held) != "left" {
		t.Errorf("%+v, %v", m, err)
	}
	unix.Close(fd)
	if _, _, err := q.Receive(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("the end: %v", err)
	}
	q.Close()
	unix.Close(take)
	if after := len(descriptors(t)); after != before {
		t.Errorf("%d descriptors, were %d", after, before)
	}
}

// Whatever can't be understood is told, closed and forgotten: what comes after it is
// received.
func TestStrangeMessages(t *testing.T) {
	p, q := pair(t)
	_, fd := connection(t)
	good := string(encode(nil, Message{Held: []byte("good")}))
	type strange struct {
		text string
		fds  []int
	}
	messages := map[string]strange{
		"no descriptor":                {good, nil},
		"two":                          {good, []int{fd, fd}},
		"three, more than are asked":   {good, []int{fd, fd, fd}},
		"many":                         {good, slices.Repeat([]int{fd}, 253)},
		"no bytes, but a descriptor":   {"", []int{fd}},
		"too long":                     {good + strings.Repeat("x", MaxHeld), []int{fd}},
		"longer than what is read":     {good + strings.Repeat("x", 3*MaxHeld), []int{fd}},
		"garbled, without descriptors": {"hello", nil},
	}
	for _, text := range garbled {
		messages["garbled: "+text[:min(len(text), 9)]] = strange{text, []int{fd}}
	}
	// Room for what is too long.
	if err := unix.SetsockoptInt(p[0], unix.SOL_SOCKET, unix.SO_SNDBUF, 1<<16); err != nil {
		t.Fatal(err)
	}
	open := len(descriptors(t))
	for name, m := range messages {
		var rights []byte
		if m.fds != nil {
			rights = unix.UnixRights(m.fds...)
		}
		if err := unix.Sendmsg(p[0], []byte(m.text), rights, nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, got, err := q.Receive(); got != -1 || !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
		if after := descriptors(t); len(after) != open {
			t.Errorf("%s: %d descriptors were open, now %v", name, open, after)
		}
		if err := q.Send(fd, Message{Held: []byte(name)}); err != nil {
			t.Fatal(err)
		}
		next, got, err := q.Receive()
		if err != nil || string(next.Held) != name {
			t.Errorf("after %s: %+v, %v", name, next, err)
		}
		unix.Close(got)
	}
}

// A descriptor for which there is no number is lost, and told.
func TestNoNumber(t *testing.T) {
	_, q := pair(t)
	_, fd := connection(t)
	if err := q.Send(fd, Message{}); err != nil {
		t.Fatal(err)
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	none := limit
	none.Cur = 3 // the standard ones are there
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &none); err != nil {
		t.Fatal(err)
	}
	_, got, err := q.Receive()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if got != -1 || !errors.Is(err, ErrMessage) {
		t.Errorf("%d, %v", got, err)
	}
}

// Open says of anything else that it is not an end of a queue, and leaves it alone.
func TestOpenOther(t *testing.T) {
	p, _ := pair(t)
	_, tcp := connection(t)
	stream, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stream[0])
	defer unix.Close(stream[1])
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	defer w.Close()
	pipe := -1
	control(t, r, func(fd int) { pipe = fd })
	open := len(descriptors(t))
	for fd, want := range map[int]string{
		tcp:       "not an end of a queue",
		stream[0]: "not an end of a queue",
		pipe:      "getsockopt: socket operation on non-socket",
		1 << 20:   "getsockopt: bad file descriptor",
		-1:        "getsockopt: bad file descriptor",
	} {
		for _, ends := range [][2]int{{fd, p[1]}, {p[0], fd}} {
			_, err := Open(ends[0], ends[1])
			if err == nil || !strings.HasSuffix(err.Error(), want) || !strings.HasPrefix(err.Error(), "moving: descriptor ") {
				t.Errorf("%v: %v", ends, err)
			}
		}
	}
	if after := descriptors(t); len(after) != open {
		t.Errorf("%d descriptors were open, now %v", open, after)
	}
}

// Receive takes the next connection, and waits for one.
func (q *Queue) Receive() (Message, int, error) {
	for {
		if _, err := q.Await(); err != nil {
			return Message{}, -1, err
		}
		if m, fd, err := q.TryReceive(HTTP); !errors.Is(err, os.ErrDeadlineExceeded) {
			return m, fd, err
		}
	}
}

// A stream arrives with its state, wherever that was.
func TestState(t *testing.T) {
	_, q := pair(t)
	for _, n := range []int{0, 1, MaxHeld, MaxHeld + 1, 1 << 16, MaxState} {
		_, fd := connection(t)
		m := Message{Kind: Stream, State: make([]byte, n)}
		for i := range m.State {
			m.State[i] = byte(i * i >> 3)
		}
		if err := q.Send(fd, m); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		got, conn, err := q.TryReceive(Stream)
		if err != nil || !got.equal(m) {
			t.Fatalf("%d bytes: %d bytes, %v", n, len(got.State), err)
		}
		unix.Close(conn)
	}
	if err := q.Send(0, Message{Kind: Stream, State: make([]byte, MaxState+1)}); !errors.Is(err, ErrMessage) {
		t.Errorf("too much state: %v", err)
	}
}

// A state that is not all in its file, or not in a file, is no connection.
func TestStateMissing(t *testing.T) {
	p, q := pair(t)
	_, fd := connection(t)
	head := encode(nil, Message{Kind: Stream, State: make([]byte, MaxHeld+1)})
	short, err := writeState([]byte("short"))
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(short)
	for name, fds := range map[string][]int{"short": {fd, short}, "no file": {fd, fd}, "none": {fd}} {
		if err := unix.Sendmsg(p[0], head, unix.UnixRights(fds...), nil, 0); err != nil {
			t.Fatal(err)
		}
		if _, got, err := q.TryReceive(Stream); got != -1 || !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %d, %v", name, got, err)
		}
	}
}

// What is of another kind, also of one that is not known yet, is left alone, and can be
// put behind what is not.
func TestKinds(t *testing.T) {
	p, q := pair(t)
	_, fd := connection(t)
	later := "z\x09\x08\x00\x00\x00\x00\x00of a later version"
	if err := unix.Sendmsg(p[0], []byte(later), unix.UnixRights(fd, fd), nil, 0); err != nil {
		t.Fatal(err)
	}
	if err := q.Send(fd, Message{Kind: Stream, State: []byte("state")}); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		for _, kind := range []Kind{HTTP, Stream} {
			if _, got, err := q.TryReceive(kind); got != -1 || !errors.Is(err, ErrKind) {
				t.Errorf("%c takes what is of a later version: %d, %v", kind, got, err)
			}
		}
	}
	if err := q.Rotate(); err != nil {
		t.Fatal(err)
	}
	if _, got, err := q.TryReceive(HTTP); got != -1 || !errors.Is(err, ErrKind) {
		t.Errorf("a stream as HTTP: %d, %v", got, err)
	}
	m, got, err := q.TryReceive(Stream)
	if err != nil || string(m.State) != "state" {
		t.Errorf("%+v, %v", m, err)
	}
	unix.Close(got)
	b, fds, err := q.receive()
	if err != nil || string(b) != later || len(fds) != 2 {
		t.Errorf("%q, %v, %v", b, fds, err)
	}
	closeAll(fds)
}

// Next is another as soon as somebody has taken what was there.
func TestNext(t *testing.T) {
	_, q := pair(t)
	if id := q.Next(); id != 0 {
		t.Errorf("%d in an empty queue", id)
	}
	_, one := connection(t)
	_, two := connection(t)
	for _, fd := range []int{one, two} {
		if err := q.Send(fd, Message{Held: []byte("held")}); err != nil {
			t.Fatal(err)
		}
	}
	first := q.Next()
	if again := q.Next(); first == 0 || again != first {
		t.Errorf("%d, then %d", first, again)
	}
	if m, fd, err := q.TryReceive(HTTP); err != nil || string(m.Held) != "held" {
		t.Errorf("a look has changed it: %+v, %v", m, err)
	} else {
		unix.Close(fd)
	}
	if second := q.Next(); second == 0 || second == first {
		t.Errorf("%d, then %d", first, second)
	}
	_, fd, _ := q.TryReceive(HTTP)
	unix.Close(fd)
}
