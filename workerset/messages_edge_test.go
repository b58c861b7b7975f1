//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/workerset"
)

func init() {
	// They misuse messages.
	hostile["too many messages"] = func(c channel) {
		c.say(state(wire.PhaseReady))
		for n := range message.Window + 1 {
			c.say(fmt.Sprintf(`{"cmd":"NODE_HANDOVER_MESSAGE","n":%d,"to":{"to":"slot","group":"other","slot":1},"type":"hold"}`+"\n", n+1))
		}
		c.untilEOF()
	}
	hostile["message without its file"] = func(c channel) {
		c.say(state(wire.PhaseReady) + `{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"parent"},"type":"x","files":1}` + "\n")
		c.untilEOF()
	}
	hostile["message with another file"] = func(c channel) {
		c.say(state(wire.PhaseReady))
		c.sendFDs(`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"parent"},"type":"x","files":1}`+"\n", 2)
		c.untilEOF()
	}
	hostile["no message"] = func(c channel) {
		c.say(state(wire.PhaseReady) + `{"cmd":"NODE_HANDOVER_MESSAGE","n":"one"}` + "\n")
		c.untilEOF()
	}
	// None of these means anything, and none is the end of the world.
	hostile["odd messages"] = func(c channel) {
		for _, line := range []string{
			`{"cmd":"NODE_HANDOVER_DONE","n":77}`, `{"cmd":"NODE_HANDOVER_DONE","n":-1,"why":"because"}`,
			`{"cmd":"NODE_HANDOVER_AGAIN","n":5}`, `{"cmd":"NODE_HANDOVER_MAIL","have":[1,2],"sent":[3],"done":[-4]}`,
			`{"cmd":"NODE_HANDOVER_MESSAGE","n":0,"to":{"to":"moon"},"type":""}`, `{"cmd":"NODE_HANDOVER_MESSAGE"}`,
			`{"cmd":"NODE_HANDOVER_MESSAGE","n":1,"to":{"to":"slot","group":"web","slot":-1},"data":{"a":[]}}`,
		} {
			c.say(line + "\n")
		}
		c.say(state(wire.PhaseReady))
		c.untilEOF()
	}
}

func TestMessagesMisused(t *testing.T) {
	for _, c := range []struct{ do, reason string }{
		{"too many messages", "more messages under way than there may be"},
		{"message without its file", "1 announced, 0 here"},
		{"message with another file", "1 descriptors that no message announced"},
		{"no message", "NODE_HANDOVER_MESSAGE: json"},
	} {
		t.Run(c.do, func(t *testing.T) {
			noLeak(t)
			h := talkers(t, 1, func(cfg *workerset.Config) {
				cfg.Groups[0].Env = []string{do(c.do)}
				cfg.Groups[0].DrainTimeout, cfg.Groups[1].DrainTimeout = 1, 1
			}).start()
			if w, _ := h.wait(0, func(ch workerset.Change) bool { return ch.Worker.Group == "web" && ch.Worker.State == "exited" }); w.Worker.Cause != "channel" || !strings.Contains(w.Worker.Reason, c.reason) {
				t.Errorf("got %q, %q", w.Worker.Cause, w.Worker.Reason)
			}
			h.stop()
		})
	}
	t.Run("odd messages", func(t *testing.T) {
		noLeak(t)
		h := talkers(t, 1, func(cfg *workerset.Config) {
			cfg.Groups[0].Env = []string{do("odd messages")}
			cfg.Groups[0].DrainTimeout = 1
		}).serve()
		if _, err := h.ask(message.Slot("other", 1), "who", nil); err != nil {
			t.Error(err)
		}
		h.stop()
		if log := h.log.String(); strings.Contains(log, "garbage") {
			t.Errorf("%s", log)
		}
	})
}

// TestMessagesWait: what is sent to a worker that is not ready yet waits for it, and what
// is sent to one that will not come ends.
func TestMessagesWait(t *testing.T) {
	t.Parallel()
	h := talkers(t, 1, func(c *workerset.Config) { c.Groups[0].DrainTimeout = time.Second })
	who := make(chan string, 1)
	go func() {
		var answer string
		if err := h.set.Messages().Request(context.Background(), message.Slot("web", 1), "who", nil, &answer); err != nil {
			answer = err.Error()
		}
		who <- answer
	}()
	h.start()
	if got := <-who; got != "web/1 1" {
		t.Errorf("%q", got)
	}
	// Its slot is scaled away, with one being handled and one that waits behind it.
	if err := h.set.Scale(h.ctx(), "web", 2); err != nil {
		t.Fatal(err)
	}
	held, err := h.set.Messages().Post(h.ctx(), message.Slot("web", 2), "hold", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.waitLine("holds")
	behind, err := h.set.Messages().Post(h.ctx(), message.Slot("web", 2), "who", nil)
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = h.set.Scale(context.Background(), "web", 1) }()
	h.state(2, "draining")
	_, err = behind.Wait(h.ctx())
	if err != nil && !errors.Is(err, message.ErrGone) && !errors.Is(err, message.ErrLost) && !errors.Is(err, message.ErrAddress) {
		t.Error(err) // it has it, and comes to it or not, or the slot was scaled away before
	}
	if _, err := held.Wait(h.ctx()); !errors.Is(err, message.ErrLost) { // nobody releases it
		t.Error(err)
	}
	if _, err := h.ask(message.Slot("web", 2), "who", nil); !errors.Is(err, message.ErrAddress) {
		t.Error(err)
	}
}

// TestMessagesGivenBack: what a draining worker has not begun with goes to its successor,
// and what it has begun with is finished.
func TestMessagesGivenBack(t *testing.T) {
	t.Parallel()
	h := talkers(t, 1, nil).serve()
	pid := h.pids("serving")[0]
	held, err := h.set.Messages().Post(h.ctx(), message.Slot("web", 1), "hold", nil)
	if err != nil {
		t.Fatal(err)
	}
	h.waitLine("holds")
	var behind []*message.Sent
	for range 10 {
		s, err := h.set.Messages().Post(h.ctx(), message.Slot("web", 1), "who", nil)
		if err != nil {
			t.Fatal(err)
		}
		behind = append(behind, s)
	}
	end := h.hold() // it drains as long as this lasts
	restarted := make(chan error, 1)
	go func() { restarted <- h.set.Restart(context.Background()) }()
	h.state(1, "draining")
	if err := <-restarted; err != nil {
		t.Fatal(err)
	}
	if err := syscall.Kill(pid, syscall.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	_, _ = end()
	if answer, err := held.Wait(h.ctx()); string(answer) != `"released"` || err != nil {
		t.Errorf("%s, %v", answer, err)
	}
	for _, s := range behind {
		if answer, err := s.Wait(h.ctx()); string(answer) != `"web/1 1"` && string(answer) != `"web/1 2"` || err != nil {
			t.Errorf("%s, %v", answer, err)
		}
	}
}

// TestMessagesToDeaf: a worker that does not read holds up its senders, and nobody else.
func TestMessagesToDeaf(t *testing.T) {
	t.Parallel()
	h := talkers(t, 1, func(c *workerset.Config) { c.Groups[0].HungAfter = -1 }).serve()
	pid := h.pids("serving")[0]
	h.freeze(pid)
	big := strings.Repeat("x", 100<<10)
	m := h.set.Messages()
	var sent []*message.Sent
	for range message.WindowBytes / (100<<10 + 2) {
		s, err := m.Post(h.ctx(), message.Slot("web", 1), "echo", big)
		if err != nil {
			t.Fatal(err)
		}
		sent = append(sent, s)
	}
	full, cancel := context.WithCancel(h.ctx())
	ended := make(chan error, 1)
	go func() { _, err := m.Post(full, message.Slot("web", 1), "echo", big); ended <- err }()
	// Others can talk, and the set does what it has to.
	if r := h.send(message.Slot("other", 1), order{To: "other/1", Type: "who"}); string(r.Answer) != `"other/1 1"` {
		t.Errorf("%+v", r)
	}
	cancel()
	if err := <-ended; !errors.Is(err, message.ErrWindow) || !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	h.status()
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	for _, s := range sent {
		if answer, err := s.Wait(h.ctx()); len(answer) != len(big)+2 || err != nil {
			t.Errorf("%d, %v", len(answer), err)
		}
	}
}

// TestMessagesHalfSent: another parent takes over while a line to a worker is half out,
// and lines of its own are half in.
func TestMessagesHalfSent(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "notes")
	h := newSet(t, func(c *workerset.Config) { talking(c, 1, log); c.Groups[0].HungAfter = -1 }).serve()
	pid := h.pids("serving")[0]
	big := strings.Repeat("x", 900<<10)
	other := message.Slot("other", 1)
	if err := h.set.Messages().Send(h.ctx(), other, "begin echo", order{To: "web/1", Type: "echo", Data: []byte(`"` + big + `"`), Times: 4}); err != nil {
		t.Fatal(err)
	}
	h.waitLine("echoed 4")
	h.freeze(pid)
	if err := h.set.Messages().Send(h.ctx(), other, "begin echo", order{To: "web/1", Type: "echo", Data: []byte(`"` + big + `"`), Times: 4}); err != nil {
		t.Fatal(err)
	}
	h.waitLine("echoes")
	for gen := 2; gen < 5; gen++ {
		next := h.trial(func(c *workerset.Config) { talking(c, 1, log); c.Generation = gen; c.Groups[0].HungAfter = -1 })
		next.out = h.out
		next.set.Hold()
		h.handOver(next)
		h = next
	}
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.set.Release() // before that new workers get nothing
	h.waitLine("echoed 8")
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Fatal(err)
	}
}

// TestMessagesResume: another parent takes over, decides for a while, and dies. What it
// knew alone comes back as an error, and nothing is handled twice.
func TestMessagesResume(t *testing.T) {
	t.Parallel()
	log := filepath.Join(t.TempDir(), "notes")
	h := newSet(t, func(c *workerset.Config) { talking(c, 1, log) })
	h.notesFile = log
	h.serve()
	const n, deaths = 2000, 4
	if err := h.set.Messages().Send(h.ctx(), message.Slot("other", 1), "start", order{To: "web/1", Type: "note", Data: []byte("1"), Times: n}); err != nil {
		t.Fatal(err)
	}
	for range deaths {
		e := h.yield()
		next := newSetOn(t, h.sock, h.addr, func(c *workerset.Config) {
			talking(c, 1, log)
			c.Generation, c.Trial = 2, true
		}).serve()
		next.set.Hold()
		if err := next.set.Commit(next.ctx(), e); err != nil {
			t.Fatal(err)
		}
		next.status() // it has done something
		next.die()
		h.set.Resume()
	}
	var r results
	for {
		if err := h.set.Messages().Request(h.ctx(), message.Slot("other", 1), "started", nil, &r); err == nil {
			break
		} else if !errors.Is(err, message.ErrLost) {
			t.Fatal(err)
		}
	}
	if ok, lost := r.Ended["ok"], r.Ended[message.ErrLost.Error()]; ok+lost != n || ok == 0 {
		t.Errorf("%v", r.Ended)
	}
	handled(t, h.notes(), "other/1", n, r.Lost)
	t.Logf("%v", r.Ended)
}

// die ends a set as a parent's death does, and waits for the workers that it has started.
func (h *harness) die() {
	h.t.Helper()
	h.set.Abandon()
	<-h.ended
	for _, c := range h.all() {
		if c.Worker.Generation == 2 && c.Worker.State == "starting" {
			if _, err := unix.Wait4(c.Worker.Pid, nil, 0, nil); err != nil && err != unix.ECHILD { // the set may have
				h.t.Error(err)
			}
		}
	}
}

// waitLine waits until a worker has printed a line.
func (h *harness) waitLine(line string) {
	h.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		b, err := os.ReadFile(h.out)
		if err != nil {
			h.t.Fatal(err)
		}
		if strings.Contains("\n"+string(b), "\n"+line+"\n") {
			return
		}
		if time.Now().After(deadline) {
			h.t.Fatalf("no worker prints %q", line)
		}
		runtime.Gosched()
	}
}
