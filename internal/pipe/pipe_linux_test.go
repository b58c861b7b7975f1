package pipe

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOwn: whatever the others do to the flags, nobody waits here.
func TestOwn(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	theirs := int(r.Fd()) // blocking now, as all copies of it are
	own, err := Own(theirs, os.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(own)
	if err := unix.SetNonblock(theirs, false); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 9)
	if n, err := unix.Read(own, b); err != unix.EAGAIN {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := w.WriteString("hello"); err != nil {
		t.Fatal(err)
	}
	if n, err := unix.Read(own, b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
	end, err := Own(int(w.Fd()), os.O_WRONLY)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(end)
	for err = nil; err == nil; {
		_, err = unix.Write(end, make([]byte, 4096))
	}
	if err != unix.EAGAIN {
		t.Error(err)
	}
	if flags, err := unix.FcntlInt(uintptr(own), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
		t.Errorf("%#x, %v", flags, err)
	}
	r.Close()
}

func TestNoPipe(t *testing.T) {
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, fd := range []int{int(f.Fd()), 9999} {
		if own, err := Own(fd, os.O_RDONLY); err == nil {
			t.Errorf("%d", own)
		}
	}
}
