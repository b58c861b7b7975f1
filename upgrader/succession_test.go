//go:build linux

package upgrader

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// pair is a succession between the new process's side and a test.
func pair(t *testing.T) (*predecessor, *wire.Conn) {
	t.Helper()
	a, b, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	ours, err := wire.NewConn(a)
	if err != nil {
		t.Fatal(err)
	}
	theirs, err := wire.NewConn(b)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { theirs.Close() })
	return newPredecessor(ours), theirs
}

func send(t *testing.T, c *wire.Conn, m any, files ...*os.File) {
	t.Helper()
	if err := c.Send(m, files...); err != nil {
		t.Error(err)
	}
}

func expect(t *testing.T, c *wire.Conn, cmd string) message {
	t.Helper()
	m, err := receive(c)
	if err != nil || m.Cmd != cmd {
		t.Fatalf("%+v, %v, want %s", m, err, cmd)
	}
	return m
}

// Formats that have a version in common get on; others say so.
func TestVersions(t *testing.T) {
	t.Parallel()
	p, old := pair(t)
	send(t, old, message{Cmd: cmdSockets, Version: successionVersion + 7, MinVersion: successionVersion, Generation: 5})
	if err := p.meet(); err != nil {
		t.Fatal(err)
	}
	if m := expect(t, old, cmdHello); m.Version != successionVersion || p.generation != 5 {
		t.Errorf("%+v, generation %d", m, p.generation)
	}
	p.close()

	p, old = pair(t)
	send(t, old, message{Cmd: cmdSockets, Version: successionVersion + 7, MinVersion: successionVersion + 1})
	err := p.meet()
	if want := "no common version of the succession format: the other side speaks 3 to 9, this one 2"; err == nil || err.Error() != want {
		t.Errorf(" got %v\nwant %s", err, want)
	}
	p.close()
}

func TestMeetBad(t *testing.T) {
	t.Parallel()
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	spec := listen.Spec{Name: "a", Network: "tcp", Addr: ":1"}
	for want, talk := range map[string]func(*wire.Conn){
		"did not say what there is to inherit: EOF": func(c *wire.Conn) { c.Close() },
		`began with "commit" instead of "sockets"`:  func(c *wire.Conn) { send(t, c, message{Cmd: cmdCommit}) },
		"succession: json: cannot unmarshal":        func(c *wire.Conn) { send(t, c, 7) },
		"1 sockets announced":                       func(c *wire.Conn) { send(t, c, message{Cmd: cmdSockets, Sockets: []entry{{Spec: spec}}}) },
		"inherit socket a=tcp://:1: wrong kind of descriptor: it is no socket of a kind that is known here, and a=tcp://:1 asks for a tcp socket": func(c *wire.Conn) {
			send(t, c, message{Cmd: cmdSockets, Sockets: []entry{{Spec: spec}, {Spec: spec}}}, file, file)
		},
	} {
		p, old := pair(t)
		talk(old)
		if err := p.meet(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf(" got %v\nwant %s", err, want)
		}
		p.close()
	}
}

func TestEnvironmentBad(t *testing.T) {
	for v, want := range map[string]string{
		"seven": `HANDOVER_SUCCESSION_FD="seven": not a descriptor number`,
		"2":     `HANDOVER_SUCCESSION_FD="2": not a descriptor number`,
		"90000": `HANDOVER_SUCCESSION_FD="90000": descriptor 90000: bad file descriptor`,
	} {
		t.Setenv(envSuccession, v)
		if _, err := meetPredecessor(); err == nil || err.Error() != want {
			t.Errorf(" got %v\nwant %s", err, want)
		}
		if os.Getenv(envSuccession) != "" {
			t.Error("the variable is left")
		}
	}
}

// More sockets and descriptors than one message takes.
func TestMany(t *testing.T) {
	t.Parallel()
	for name, state := range map[string]string{"small": `{"x":1}`, "large": `{"x":"` + strings.Repeat("x", 3<<20) + `"}`} {
		t.Run(name, func(t *testing.T) { handsOver(t, state) })
	}
}

func handsOver(t *testing.T, state string) {
	t.Parallel()
	const n = 2*maxPerMessage + 1
	p, old := pair(t)
	u := &Upgrader{generation: 1, sockets: map[string]*Socket{}}
	s, err := openSocket(listen.Spec{Name: "a", Network: "tcp", Addr: "127.0.0.1:0"})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for i := range n {
		f, err := s.dup()
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprint("s", i)
		if u.sockets[name], err = inheritSocket(entry{Spec: listen.Spec{Name: name, Network: "tcp", Addr: "127.0.0.1:0"}}, f); err != nil {
			t.Fatal(err)
		}
		defer u.sockets[name].Close()
	}
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	legacy := Legacy{State: []byte(state)}
	for i := range n {
		legacy.Files = append(legacy.Files, NamedFile{fmt.Sprint("f", i), file})
	}
	sent := make(chan error, 1)
	go func() { sent <- errors.Join(u.sendSockets(old), sendLegacy(old, legacy)) }()
	if err := p.meet(); err != nil {
		t.Fatal(err)
	}
	defer p.close()
	if len(p.sockets) != n {
		t.Errorf("%d sockets", len(p.sockets))
	}
	for spec, s := range p.sockets {
		if a := s.Addr(); a == nil || s.Name() != spec.Name {
			t.Errorf("%v: %v", spec, a)
		}
		s.Close()
	}
	got, err := p.awaitCommit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer got.Close()
	if err := <-sent; err != nil {
		t.Error(err)
	}
	if len(got.Files) != n || string(got.State) != string(legacy.State) {
		t.Errorf("%d files, a state of %d bytes", len(got.Files), len(got.State))
	}
	for i, f := range got.Files {
		if f.Name != fmt.Sprint("f", i) {
			t.Fatalf("file %d is %s", i, f.Name)
		}
	}
}

// What arrives, or does not, in place of a commit.
func TestAwaitCommit(t *testing.T) {
	t.Parallel()
	file, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	met := func() (*predecessor, *wire.Conn) {
		p, old := pair(t)
		send(t, old, message{Cmd: cmdSockets})
		if err := p.meet(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(p.close)
		expect(t, old, cmdHello)
		return p, old
	}
	t.Run("half of it", func(t *testing.T) {
		p, old := met()
		send(t, old, message{Cmd: cmdLegacy, Files: []string{"a"}}, file)
		old.Close()
		if l, err := p.awaitCommit(t.Context()); err != errOrphaned || len(l.Files) != 0 {
			t.Errorf("%v, %v", l, err)
		}
	})
	t.Run("half a line", func(t *testing.T) {
		p, old := met()
		rc, err := old.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		_ = rc.Write(func(fd uintptr) bool { _, err = unix.Write(int(fd), []byte(`{"cmd":`)); return true })
		if err != nil {
			t.Fatal(err)
		}
		old.Close()
		if _, err := p.awaitCommit(t.Context()); err != errOrphaned {
			t.Error(err)
		}
	})
	t.Run("garbage", func(t *testing.T) {
		p, old := met()
		send(t, old, message{Cmd: "from the future", Files: []string{"ignored"}})
		send(t, old, []int{1})
		if _, err := p.awaitCommit(t.Context()); err == nil || !strings.Contains(err.Error(), "the predecessor's legacy: ") {
			t.Error(err)
		}
	})
	t.Run("missing files", func(t *testing.T) {
		p, old := met()
		send(t, old, message{Cmd: cmdLegacy, Files: []string{"a", "b"}}, file)
		send(t, old, message{Cmd: cmdCommit})
		if _, err := p.awaitCommit(t.Context()); !errors.Is(err, wire.ErrMissingFiles) {
			t.Error(err)
		}
	})
	t.Run("nothing", func(t *testing.T) {
		p, old := met()
		ctx, cancel := context.WithCancelCause(t.Context())
		why := errors.New("why")
		done := make(chan error)
		go func() { _, err := p.awaitCommit(ctx); done <- err }()
		expect(t, old, cmdPrepared)
		cancel(why)
		if err := <-done; err != why {
			t.Error(err)
		}
		// What comes late is closed with the rest.
		send(t, old, message{Cmd: cmdLegacy, Files: []string{"a"}}, file)
		send(t, old, message{Cmd: cmdCommit})
		p.fail(why)
		if m := expect(t, old, cmdFailed); m.Reason != "why" {
			t.Errorf("%+v", m)
		}
	})
}
