//go:build linux

package upgrader

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/listen"
)

// What a new program prints neither kills this process, when nobody reads its
// standard output, nor is it lost for the report.
func TestOutputWithoutReader(t *testing.T) {
	t.Parallel()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	r.Close()
	fd := int(w.Fd())
	o, err := newOutput(fd, fd)
	if err != nil {
		t.Fatal(err)
	}
	// start closes this process's write ends: keep others, as a child does.
	var child []*os.File
	for _, c := range o.std {
		child = append(child, dupFile(int(c.w.Fd())))
	}
	o.start()
	fmt.Fprint(child[0], "the beginning\n", strings.Repeat("x", 3*outputKept))
	child[0].Close()
	<-o.std[0].done
	fmt.Fprintln(child[1], "the end")
	child[1].Close()
	o.finish(patience)
	if s := o.String(); len(s) > 2*outputKept+40 || !strings.HasPrefix(s, "the beginning\n… (") || !strings.HasSuffix(s, "xthe end") {
		t.Errorf("%d bytes", len(s))
	}
}

// What is in the pipes counts also when the time to read it is up.
func TestOutputLate(t *testing.T) {
	t.Parallel()
	o, err := newOutput(-1, -1)
	if err != nil {
		t.Fatal(err)
	}
	child := dupFile(int(o.std[0].w.Fd())) // stays open, as with a process that lives on
	defer child.Close()
	fmt.Fprintln(child, "the end")
	_ = o.std[0].r.SetReadDeadline(time.Unix(1, 0))
	o.start()
	o.finish(0)
	if s := o.String(); s != "the end" {
		t.Errorf("%q", s)
	}
}

// A socket stays open when the listeners made of it are closed.
func TestSocket(t *testing.T) {
	t.Parallel()
	s, err := openSocket(listen.Spec{Name: "a", Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	addr := s.Addr().String()
	for range 2 {
		ln, err := s.Listener()
		if err != nil {
			t.Fatal(err)
		}
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		a, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		a.Close()
		c.Close()
		ln.Close()
	}
	for range 2 {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if s.Fd() != -1 || s.Addr() != nil {
		t.Error("it is open")
	}
	if _, err := s.Listener(); !errors.Is(err, net.ErrClosed) {
		t.Error(err)
	}
	runtime.KeepAlive(s)
}
