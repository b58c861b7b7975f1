package wire

import (
	"testing"

	"golang.org/x/sys/unix"
)

// A process at its limit of descriptors gets some of them, and no second chance.
func TestFilesLost(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	r, w := pipes(t, 6)
	noErr(t, a.Send("ok", w[0]))
	noErr(t, a.Send("lost", w[1:]...))
	wantLine(t, b, `"ok"`)

	highest := 0
	for _, f := range append(r, w...) {
		control(t, f, func(fd int) error { highest = max(highest, fd); return nil })
	}
	var old unix.Rlimit
	noErr(t, unix.Getrlimit(unix.RLIMIT_NOFILE, &old))
	// One place above the descriptor that "ok" brought; holes below may add
	// some.
	low := old
	low.Cur = uint64(highest) + 3
	noErr(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &low))
	_, err := b.Read()
	noErr(t, unix.Setrlimit(unix.RLIMIT_NOFILE, &old))
	wantErr(t, err, ErrFilesLost)

	_, err = b.Read()
	wantErr(t, err, ErrFilesLost)
	_, err = b.Halt()
	wantErr(t, err, ErrFilesLost)
	wantSameFiles(t, must(b.TakeFiles(1))(t), r[:1])
	if n := b.Pending(); n != 0 {
		t.Errorf("%d of the lost message's descriptors are pending", n)
	}
}

// The same by a control buffer that is too small, and with other kinds of control
// messages among them.
func TestControlMessages(t *testing.T) {
	wantFDs(t)
	a, b := newPair(t)
	control(t, b.f, func(fd int) error { return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	b.in.oob = make([]byte, unix.CmsgSpace(unix.SizeofUcred)+unix.CmsgSpace(4*3))
	r, w := pipes(t, 5)
	noErr(t, a.Send("fits", w[:3]...))
	wantLine(t, b, `"fits"`)
	wantSameFiles(t, must(b.TakeFiles(3))(t), r[:3])
	noErr(t, a.Send("does not", w...))
	_, err := b.Read()
	wantErr(t, err, ErrFilesLost)
	if n := b.Pending(); n != 0 {
		t.Errorf("%d pending", n)
	}
}
