//go:build linux

package workerset_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/workerset"
)

func init() {
	hostile["half a line before its mail"] = func(c channel) { halfLine(c, 0, false) }
	hostile["half a line before a file"] = func(c channel) { halfLine(c, 0, true) }
	hostile["its first mail is lost"] = func(c channel) { halfLine(c, 1, false) }
}

// halfLine speaks by hand: a message to the parent, with half a line after it, and the
// other half when it gets SIGUSR1. Then it answers all questions for its mail but the
// first so many, says that it waits for the result of one that nobody knows, and prints
// what becomes of that. It may send a file before all that.
func halfLine(c channel, lost int, file bool) {
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR1)
	s := state(wire.PhaseReady)
	c.say(s + `{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"parent"},"type":"half"}` + "\n" + s[:len(s)/2])
	<-usr
	c.say(s[len(s)/2:])
	<-usr
	if file {
		c.sendFDs(`{"cmd":"NODE_HANDOVER_MESSAGE","n":2,"to":{"to":"parent"},"type":"file","files":1}`+"\n", 1)
	}
	lines := bufio.NewScanner(c)
	for lines.Scan() {
		var m struct {
			wire.Who
			Why wire.Why `json:"why"`
		}
		if json.Unmarshal(lines.Bytes(), &m) != nil {
			os.Exit(4)
		}
		switch {
		case m.Cmd == wire.CmdDrain:
			os.Exit(0)
		case m.Cmd == wire.CmdSent && m.Why != "":
			fmt.Println(m.N, "is", m.Why)
		case m.Cmd == wire.CmdWho && m.Mail && lost > 0:
			lost--
		case m.Cmd == wire.CmdWho && m.Mail:
			c.say(fmt.Sprintf(`{"cmd":"NODE_HANDOVER_MAIL","n":%d,"sent":[9]}`+"\n"+s, m.N))
		}
	}
}

// halfRead is a set whose worker "web" has said a line of which the set has read the first
// half, and another parent the second.
func halfRead(t *testing.T, what string) *harness {
	t.Helper()
	h := talkers(t, 1, func(c *workerset.Config) { c.Groups[0].Env = []string{do(what)} })
	half := make(chan struct{})
	h.set.Messages().Handle("half", func(context.Context, *message.Message) (any, error) { close(half); return nil, nil })
	h.serve()
	<-half // it came with the half line
	pid := h.pids("serving")[0]
	h.otherReads(func() error { return syscall.Kill(pid, syscall.SIGUSR1) })
	if err := syscall.Kill(pid, syscall.SIGUSR1); err != nil { // goes on
		t.Fatal(err)
	}
	return h
}

// otherReads gives the set to another parent, which reads one line of the first worker of
// "web", of which more makes it say the end, and dies.
func (h *harness) otherReads(more func() error) {
	h.t.Helper()
	e := h.yield()
	defer e.Close()
	if err := more(); err != nil {
		h.t.Fatal(err)
	}
	for name, f := range e.Files {
		if !strings.HasPrefix(name, "channel:web/") {
			continue
		}
		if err := f.SetReadDeadline(time.Now().Add(patience)); err != nil {
			h.t.Fatal(err)
		}
		if line, err := bufio.NewReader(f).ReadString('\n'); err != nil || strings.HasPrefix(line, "{") {
			h.t.Fatalf("%q, %v: not the second half of a line", line, err)
		}
	}
}

// TestMessagesHalfRead: a worker's first words to a parent that goes on can't be read, as
// they follow the half of a line of which another one has read the end.
func TestMessagesHalfRead(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"half a line before its mail", "half a line before a file"} {
		h := halfRead(t, what)
		h.set.Resume()
		h.waitLine("9 is lost")
		if log := h.log.String(); !strings.Contains(log, "half a line") || strings.Contains(log, "garbage") {
			t.Errorf("%s: it was read, or is taken for its fault", what)
		}
		h.stop()
	}
}

// TestMessagesMailLost: the parent to which a worker has told its mail could not read it,
// and is no more.
func TestMessagesMailLost(t *testing.T) {
	t.Parallel()
	h := halfRead(t, "its first mail is lost")
	h.set.Resume()
	next := h.trial(func(c *workerset.Config) { talking(c, 1, h.notesFile); c.Generation = 2 })
	next.set.Hold()
	h.handOver(next)
	h.waitLine("9 is lost")
	next.set.Release()
}

// TestHandoutsHalfRead: nor can a program's word that it has got a socket.
func TestHandoutsHalfRead(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "go")
	const says = `bytes {"to":"parent","type":"half"}\n{"to":"par;`
	h := newForeign(t, "catch;read;"+says+"wait "+file+`;bytes ent"}\n;read;`+ack+"term;exit 0", func(c *workerset.Config) { offers(t, c) })
	half := make(chan struct{})
	h.set.Messages().Handle("half", func(context.Context, *message.Message) (any, error) { close(half); return nil, nil })
	h.start()
	<-half
	h.otherReads(func() error { return os.WriteFile(file, nil, 0o600) })
	h.set.Resume()
	h.state(1, "serving")
}
