//go:build linux || darwin || freebsd

package wire

import (
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSendRead(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	noErr(t, a.Send(map[string]any{"cmd": "x", "text": "two\nlines"}))
	noErr(t, b.Send("back"))
	wantLine(t, b, `{"cmd":"x","text":"two\nlines"}`)
	wantLine(t, a, `"back"`)
	noErr(t, a.Close())
	_, err := b.Read()
	if err != io.EOF {
		t.Fatalf("Read after the peer closed: %v, want io.EOF itself", err)
	}
	wantErr(t, b.Send(1), syscall.EPIPE)
	wantErr(t, b.TrySend(1), syscall.EPIPE)
}

// Every way to cut the stream in two or three gives the same lines.
func TestSplitsAtEveryByte(t *testing.T) {
	t.Parallel()
	data := []byte("{\"a\":1}\n\n{\"b\":\"äö\"}\n[2]\n\n\n3\n\"half")
	want, wantEnd := reference(data, MaxLine)
	for i := range len(data) + 1 {
		for j := i; j <= len(data); j++ {
			var l lines
			var got []string
			for _, part := range [][]byte{data[:i], data[i:j], data[j:]} {
				for len(part) > 0 {
					n := copy(l.room(MaxLine), part)
					l.added(n)
					part = part[n:]
					for {
						line, err := l.next(MaxLine)
						noErr(t, err)
						if line == nil {
							break
						}
						got = append(got, string(line))
					}
				}
			}
			if !slices.Equal(got, want) || l.partial() != (wantEnd == io.ErrUnexpectedEOF) {
				t.Fatalf("cut at %d and %d: %q, want %q", i, j, got, want)
			}
		}
	}
}

// The same through a socket that the reader empties after each part.
func TestSplitsOnSocket(t *testing.T) {
	t.Parallel()
	data := "{\"a\":1}\n{\"b\":2}\n\n{\"c\":3}\n"
	want, _ := reference([]byte(data), MaxLine)
	for i := 1; i < len(data); i++ {
		c, peer := newRaw(t)
		before, _ := reference([]byte(data[:i]), MaxLine)
		write(t, peer, data[:i])
		noErr(t, c.fill(MaxLine))
		for _, line := range before {
			wantLine(t, c, line)
		}
		write(t, peer, data[i:])
		for _, line := range want[len(before):] {
			wantLine(t, c, line)
		}
	}
}

func TestEnds(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, sent string
		unread     bool // the peer dies with a line of ours unread
		want       error
	}{
		{"between lines", "1\n", false, io.EOF},
		{"at once", "", false, io.EOF},
		{"mid-line", "1\n{\"cmd", false, io.ErrUnexpectedEOF},
		{"unread", "1\n", true, io.EOF},
		{"unread, mid-line", "1\n2", true, io.ErrUnexpectedEOF},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			c, peer := newRaw(t)
			if tt.unread {
				noErr(t, c.Send("never read"))
			}
			write(t, peer, tt.sent)
			noErr(t, peer.Close())
			if tt.sent != "" {
				wantLine(t, c, "1")
			}
			for range 3 { // and it stays the end
				if _, err := c.Read(); err != tt.want {
					t.Fatalf("Read: %v, want %v itself", err, tt.want)
				}
			}
			wantErr(t, c.Send(1), syscall.EPIPE)
		})
	}
}

func TestLineCap(t *testing.T) {
	t.Parallel()
	a, peer := newRaw(t)
	go func() {
		peer.Write(bytes.Repeat([]byte("x"), MaxLine))
		peer.Write([]byte("\nshort\n"))
		peer.Write(bytes.Repeat([]byte("x"), MaxLine+1))
		peer.Close()
	}()
	line, err := a.Read()
	if len(line) != MaxLine || err != nil {
		t.Fatalf("a line of the cap: %d bytes, %v", len(line), err)
	}
	wantLine(t, a, "short")
	for range 2 {
		_, err = a.Read()
		wantErr(t, err, ErrLineTooLong)
		var typed *LineTooLongError
		if !errors.As(err, &typed) || typed.Cap != MaxLine {
			t.Fatalf("error %#v has no cap", err)
		}
	}
	if n := len(a.lines.buf); n > MaxLine+1 {
		t.Errorf("buffered %d bytes, the cap is %d", n, MaxLine)
	}
	a.Close()

	c, d := newPair(t)
	wantErr(t, c.Send(strings.Repeat("x", MaxLine-1)), ErrLineTooLong)
	c.SetMaxLine(10)
	wantErr(t, c.Send("123456789"), ErrLineTooLong)
	noErr(t, c.Send("12345678"))
	d.SetMaxLine(9)
	_, err = d.Read()
	wantErr(t, err, ErrLineTooLong)
	c.SetMaxLine(0)
	noErr(t, c.Send("123456789"))
	if err := c.Send(func() {}); err == nil {
		t.Error("a value that is no JSON was sent")
	}
}

func TestNotAChannel(t *testing.T) {
	wantFDs(t)
	dir := t.TempDir()
	pr, pw, err := os.Pipe()
	noErr(t, err)
	defer pw.Close()
	file := must(os.Create(filepath.Join(dir, "file")))(t)
	folder := must(os.Open(dir))(t)
	null := must(os.Open(os.DevNull))(t)
	tcp := must(net.Listen("tcp", "127.0.0.1:0"))(t)
	defer tcp.Close()
	tcpFile := must(tcp.(*net.TCPListener).File())(t)
	ul := must(net.Listen("unix", filepath.Join(dir, "sock")))(t)
	defer ul.Close()
	ulFile := must(ul.(*net.UnixListener).File())(t)
	dgram := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM, 0))(t)
	defer unix.Close(dgram[1])
	lone := must(unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0))(t)
	closed := must(os.Open(os.DevNull))(t)
	noErr(t, closed.Close())

	for want, f := range map[string]*os.File{
		"a pipe":                     pr,
		"a regular file":             file,
		"a directory":                folder,
		"a character device":         null,
		"an internet socket":         tcpFile,
		"a listening unix socket":    ulFile,
		"a unix datagram socket":     os.NewFile(uintptr(dgram[0]), "dgram"),
		"a unix socket without a pe": os.NewFile(uintptr(lone), "lone"),
		"not usable":                 os.NewFile(1<<20, "never open"),
		"closed":                     closed,
		"nil":                        nil,
	} {
		fd := -1
		if f != nil {
			if rc, err := f.SyscallConn(); err == nil {
				rc.Control(func(n uintptr) { fd = int(n) })
			}
		}
		c, err := NewConn(f)
		wantErr(t, err, ErrNotChannel)
		var typed *NotChannelError
		if c != nil || !errors.As(err, &typed) || typed.FD != fd || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error is %v, want descriptor %d", want, err, fd)
		}
		if f != nil && f.Close() == nil {
			t.Errorf("%s was not closed", want)
		}
	}

	// What the residue holds is closed with it.
	extra := must(os.Open(os.DevNull))(t)
	_, err = Resume(must(os.Open(os.DevNull))(t), Residue{Files: []*os.File{extra}})
	wantErr(t, err, ErrNotChannel)
	if extra.Close() == nil {
		t.Error("the residue's file was not closed")
	}
}

// A peer that is gone already is the stream's end, not a wrong descriptor.
func TestNewConnAfterPeerDied(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("elsewhere such a socket has no peer")
	}
	a, b, err := Pair()
	noErr(t, err)
	noErr(t, b.Close())
	c := must(NewConn(a))(t)
	defer c.Close()
	if _, err := c.Read(); err != io.EOF {
		t.Fatalf("Read: %v", err)
	}
}

// A file that is blocking and outside the poller, as os.NewFile(3) is in a worker.
func TestNewConnOnBlockingFile(t *testing.T) {
	t.Parallel()
	fds := must(unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0))(t)
	f, peer := os.NewFile(uintptr(fds[0]), "inherited"), os.NewFile(uintptr(fds[1]), "peer")
	defer peer.Close()
	c := must(NewConn(f))(t)
	defer c.Close()
	if !nonblocking(t, c.f) || !flag(t, c.f, unix.F_GETFD, unix.FD_CLOEXEC) {
		t.Fatal("not non-blocking and close-on-exec")
	}
	noErr(t, c.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err := c.Read()
	wantErr(t, err, os.ErrDeadlineExceeded)
	noErr(t, c.SetReadDeadline(time.Time{}))
	write(t, peer, "1\n")
	wantLine(t, c, "1")
}

// Nothing that a Conn does clears O_NONBLOCK, on its own sockets or on those that
// it sends; and when somebody else clears it, no thread blocks.
func TestNonblock(t *testing.T) {
	t.Parallel()
	fa, fb, err := Pair()
	noErr(t, err)
	for _, f := range []*os.File{fa, fb} {
		if !nonblocking(t, f) || !flag(t, f, unix.F_GETFD, unix.FD_CLOEXEC) {
			t.Fatal("Pair: not non-blocking and close-on-exec")
		}
	}
	a, b := must(NewConn(fa))(t), must(NewConn(fb))(t)
	defer a.Close()
	defer b.Close()
	sa, sb, err := Pair()
	noErr(t, err)
	defer sa.Close()
	defer sb.Close()
	noErr(t, a.Send("files", sa, sb))
	noErr(t, a.TrySend("file", sa))
	wantLine(t, b, `"files"`)
	wantLine(t, b, `"file"`)
	files := must(b.TakeFiles(3))(t)
	b.Unhalt(must(b.Halt())(t))
	must(b.SyscallConn())(t)
	for _, f := range append(files, sa, sb, a.f, b.f) {
		if !nonblocking(t, f) {
			t.Fatal("O_NONBLOCK was cleared")
		}
	}
	wantSameFiles(t, files, []*os.File{sa, sb, sa})

	for _, c := range []*Conn{a, b} {
		control(t, c.f, func(fd int) error { return unix.SetNonblock(fd, false) })
	}
	noErr(t, b.SetReadDeadline(time.Now().Add(time.Millisecond)))
	_, err = b.Read()
	wantErr(t, err, os.ErrDeadlineExceeded)
	fillUp(t, a)
	noErr(t, a.SetWriteDeadline(time.Now().Add(time.Millisecond)))
	wantErr(t, a.Send("no room"), os.ErrDeadlineExceeded)
}

func TestCloseUnblocks(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	fillUp(t, a)
	_, w := pipes(t, 2)
	noErr(t, b.Send("with files", w...))
	wantLine(t, a, `"with files"`)
	errs := make(chan error)
	go func() { _, err := a.Read(); errs <- err }()
	for range 2 {
		go func() { errs <- a.Send("no room") }()
	}
	noErr(t, a.Close())
	for range 3 {
		wantErr(t, <-errs, os.ErrClosed)
	}
	noErr(t, a.Close())
	if n := a.Pending(); n != 0 {
		t.Errorf("%d descriptors pending after Close", n)
	}
	_, err := a.Read()
	wantErr(t, err, os.ErrClosed)
	wantErr(t, a.Send(1), os.ErrClosed)
	wantErr(t, a.TrySend(1), os.ErrClosed)
	_, err = a.Halt()
	wantErr(t, err, os.ErrClosed)
	_, err = a.TakeFiles(1)
	wantErr(t, err, ErrMissingFiles)
}

// Descriptors that arrive while another goroutine closes the Conn have nobody
// else to close them.
func TestArrivalAfterClose(t *testing.T) {
	t.Parallel()
	a, _ := newPair(t)
	noErr(t, a.Close())
	f := must(os.Open(os.DevNull))(t)
	wantErr(t, a.enqueue([]*os.File{f}), os.ErrClosed)
	if f.Close() == nil {
		t.Error("not closed")
	}
}

// TestBuffered: descriptors may come with lines that precede theirs, which is seen by
// what is here of those that follow.
func TestBuffered(t *testing.T) {
	t.Parallel()
	a, b := newPair(t)
	null := must(os.Open(os.DevNull))(t)
	defer null.Close()
	noErr(t, a.Send(map[string]int{"n": 0}))
	noErr(t, a.Send(map[string]int{"n": 1}, null)) // both in one read
	for _, buffered := range []bool{true, false} {
		if _, err := b.Read(); err != nil {
			t.Fatal(err)
		}
		if b.Pending() != 1 || b.Buffered() > 0 != buffered {
			t.Errorf("%d descriptors, %d bytes", b.Pending(), b.Buffered())
		}
	}
}
