package control

import (
	"errors"
	"net"
	"syscall"
	"testing"
)

// scarce is a listener in a process that has no descriptor left but the spare one.
type scarce struct {
	net.Listener
	in   *limited
	open int
}

func (s *scarce) Accept() (net.Conn, error) {
	if s.in.spare.file != nil || s.open > 0 {
		return nil, &net.OpError{Op: "accept", Net: "unix", Err: syscall.EMFILE}
	}
	s.open++
	return s.Listener.Accept()
}

// TestSpare: one at a time is answered when there are no descriptors, and all others have to wait.
func TestSpare(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("unix", t.TempDir()+"/s")
	if err != nil {
		t.Fatal(err)
	}
	s := &scarce{Listener: ln}
	s.in = limit(s)
	for range 3 {
		client, err := net.Dial("unix", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		c, err := s.in.Accept()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.in.Accept(); !errors.Is(err, syscall.EMFILE) {
			t.Errorf("a second one: %v", err)
		}
		s.open--
		c.Close()
	}
	if err := s.in.Close(); err != nil {
		t.Fatal(err)
	}
	if s.in.spare.keep(); s.in.spare.file != nil {
		t.Error("one is kept when all is over")
	}
}
