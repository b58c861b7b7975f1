//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/workerset"
)

// talkers are a set whose workers do what messages say: a group "web" of n, and "other"
// of one.
func talkers(t *testing.T, n int, change func(*workerset.Config)) *harness {
	t.Helper()
	log := filepath.Join(t.TempDir(), "notes")
	h := newSet(t, func(c *workerset.Config) {
		talking(c, n, log)
		if change != nil {
			change(c)
		}
	})
	h.notesFile = log
	return h
}

func talking(c *workerset.Config, n int, log string) {
	c.Groups[0].Count = n
	c.Groups[0].Env = []string{do("always:talk"), envLog + "=" + log}
	c.Groups[0].Burst = 1000
	c.Groups[0].DrainTimeout = patience
	other := c.Groups[0]
	other.Name, other.Count = "other", 1
	c.Groups = append(c.Groups, other)
}

// ask is a request of the parent's.
func (h *harness) ask(to message.Address, typ string, data any, files ...*os.File) (answer string, err error) {
	h.t.Helper()
	err = h.set.Messages().Request(h.ctx(), to, typ, data, &answer, files...)
	return answer, err
}

// send makes a worker send something.
func (h *harness) send(from message.Address, o order) (r results) {
	h.t.Helper()
	if err := h.set.Messages().Request(h.ctx(), from, "send", o, &r); err != nil {
		h.t.Fatal(err)
	}
	return r
}

func TestMessages(t *testing.T) {
	noLeak(t)
	h := talkers(t, 2, nil)
	h.set.Messages().Handle("up", func(_ context.Context, m *message.Message) (any, error) {
		return fmt.Sprintf("%v %s", m.From, m.Data), nil
	})
	h.serve()
	for _, c := range []struct {
		to        message.Address
		typ       string
		data      any
		want, why string
	}{
		{message.Slot("web", 1), "echo", "hello", "hello", "ok"},
		{message.Slot("web", 2), "who", nil, "web/2 2", "ok"},
		{message.Any("other"), "who", nil, "other/1 1", "ok"},
		{message.Parent(), "up", 5, "the parent 5", "ok"},
		{message.Slot("web", 1), "echo", "<&> 1\u2028", "<&> 1\u2028", "ok"},
		{message.Slot("web", 1), "echo", strings.Repeat("x", message.MaxData-2), strings.Repeat("x", message.MaxData-2), "ok"},
		{message.Slot("web", 1), "echo", strings.Repeat("x", message.MaxData), "", message.ErrRefused.Error()},
		{message.Slot("web", 3), "echo", "hello", "", message.ErrAddress.Error()},
		{message.Any("nobody"), "echo", "hello", "", message.ErrAddress.Error()},
		{message.Slot("web", 1), "nothing", "hello", "", message.ErrUnhandled.Error()},
		{message.Slot("web", 1), "fail", "hello", "", message.ErrHandler.Error()},
		{message.Slot("web", 1), "panic", "hello", "", message.ErrHandler.Error()},
		{message.Parent(), "echo", "hello", "", message.ErrUnhandled.Error()},
	} {
		if got, err := h.ask(c.to, c.typ, c.data); got != c.want || why(err) != c.why {
			t.Errorf("%s to %v: %.80q, %v", c.typ, c.to, got, err)
		}
	}
	for _, c := range []struct {
		o    order
		want string
		err  string
	}{
		{order{To: "web/1", Type: "who"}, `"web/1 1"`, ""},
		{order{To: "other/1", Type: "who"}, `"other/1 1"`, ""}, // itself
		{order{To: "parent", Type: "up", Data: []byte("7")}, `"other/1 7"`, ""},
		{order{To: "parent", Type: "down"}, `null`, `message "down" to the parent: there is no handler for it`},
		{order{To: "web/9", Type: "who"}, `null`, `message "who" to web/9: there is nobody of that address`},
		{order{To: "web/2", Type: "fail"}, `null`, `message "fail" to web/2: the handler failed: no luck`},
		{order{To: "group web", Type: "echo", Data: []byte("1")}, `null`, ``},
		{order{To: "all", Type: "fail"}, `null`, `message "fail" to all: the handler failed: no luck`},
	} {
		if r := h.send(message.Slot("other", 1), c.o); string(r.Answer) != c.want || r.Err != c.err {
			t.Errorf("%+v: %s, %q", c.o, r.Answer, r.Err)
		}
	}
	// Any is each in turn.
	seen := map[string]bool{}
	for range 4 {
		who, err := h.ask(message.Any("web"), "who", nil)
		if err != nil {
			t.Fatal(err)
		}
		seen[who] = true
	}
	if len(seen) != 2 {
		t.Errorf("any is %v", seen)
	}
	// What is to all comes to all, once.
	if err := h.set.Messages().Send(h.ctx(), message.All(), "note", 1); err != nil {
		t.Error(err)
	}
	if got := h.notes(); len(got) != 3 {
		t.Errorf("notes %q", got)
	}
	h.stop()
	if _, err := h.ask(message.Slot("web", 1), "echo", 1); !errors.Is(err, message.ErrClosed) {
		t.Error(err)
	}
}

// notes are the lines of the log: SENDER ID SLOT NUMBER.
func (h *harness) notes() []string {
	h.t.Helper()
	b, err := os.ReadFile(h.notesFile)
	if err != nil {
		h.t.Fatal(err)
	}
	return strings.Split(strings.TrimSuffix(string(b), "\n"), "\n")
}

func temp(t *testing.T, content string) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err == nil {
		_, err = f.WriteString(content)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestMessagesFiles: files go along, to workers and to the parent, and are closed when the
// message was handled. If it was not, the sender has them.
func TestMessagesFiles(t *testing.T) {
	noLeak(t)
	h := talkers(t, 1, nil).serve()
	a, b := temp(t, "one"), temp(t, "two")
	if got, err := h.ask(message.Slot("web", 1), "read", nil, a, b); got != "one,two" || err != nil {
		t.Errorf("%q, %v", got, err)
	}
	if _, err := a.Stat(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("it is open: %v", err)
	}
	for _, typ := range []string{"nothing", "fail", "die"} {
		c := temp(t, "three")
		if _, err := h.ask(message.Slot("web", 1), typ, nil, c); err == nil {
			t.Error("no error")
		}
		if _, err := c.Stat(); err != nil {
			t.Errorf("%s: %v", typ, err)
		}
		if got, err := h.ask(message.Slot("web", 1), "read", nil, c); got != "three" || err != nil {
			t.Errorf("%s: then %q, %v", typ, got, err)
		}
	}
	h.stop()
}

// handled checks a log against what senders were told: numbers from 1 to n of one
// sender, each noted once in their order, unless nothing is known of it.
func handled(t *testing.T, notes []string, sender string, n int, lost []int) {
	t.Helper()
	missing := map[int]bool{}
	for _, l := range lost {
		missing[l] = true
	}
	next := 1
	for _, line := range notes {
		from, rest, _ := strings.Cut(line, " ")
		var id, slot, number int
		if _, err := fmt.Sscan(rest, &id, &slot, &number); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if from != sender {
			continue
		}
		for ; next < number; next++ {
			if !missing[next] {
				t.Fatalf("%d of %s is not handled, or late: then comes %d", next, sender, number)
			}
		}
		if number < next {
			t.Fatalf("%d of %s is handled twice, or late: after %d", number, sender, next-1)
		}
		next++
	}
	for ; next <= n; next++ {
		if !missing[next] {
			t.Fatalf("%d of %s is not handled", next, sender)
		}
	}
}

// TestMessagesOverReplacements: a worker is replaced again and again, and everything
// that is sent to its slot is handled once and in order, or comes back as an error.
func TestMessagesOverReplacements(t *testing.T) {
	t.Parallel()
	h := talkers(t, 1, nil).serve()
	const n = 3000
	// Each worker lives for a moment only, and on a busy machine does little in it.
	ctx, cancel := context.WithTimeout(t.Context(), 4*patience)
	defer cancel()
	var r results
	done := make(chan error, 1)
	go func() {
		done <- h.set.Messages().Request(ctx, message.Slot("other", 1), "send", order{To: "web/1", Type: "note", Data: []byte("1"), Times: n}, &r)
	}()
	kills, last := 0, 0
	for running := true; running; {
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			running = false
			continue
		default:
		}
		w, at := h.wait(last, func(c workerset.Change) bool { return c.Worker.Group == "web" && c.Worker.State == "serving" })
		last = at + 1
		switch kills++; kills % 3 {
		case 0:
			_ = syscall.Kill(w.Worker.Pid, syscall.SIGKILL)
		case 1:
			_ = syscall.Kill(w.Worker.Pid, syscall.SIGTERM)
		default:
			_ = h.set.Messages().Send(h.ctx(), message.Slot("web", 1), "fail worker", nil)
		}
	}
	lost := message.ErrLost.Error()
	if r.Ended["ok"]+r.Ended[lost] != n || r.Ended["ok"] == 0 || r.Ended[lost] != len(r.Lost) {
		t.Errorf("%v", r.Ended)
	}
	handled(t, h.notes(), "other/1", n, r.Lost)
	t.Logf("%d replacements, %v", kills, r.Ended)
}

// TestMessagesOverUpgrades: other parents take over, with workers of their own, and
// everything is handled once and in order.
func TestMessagesOverUpgrades(t *testing.T) {
	t.Parallel()
	const n, upgrades = 3000, 3
	log := filepath.Join(t.TempDir(), "notes")
	h := newSet(t, func(c *workerset.Config) { talking(c, 1, log) })
	h.notesFile = log
	h.serve()
	up := make(chan string, 10*upgrades)
	finish := func(_ context.Context, m *message.Message) (any, error) { up <- string(m.Data); return nil, nil }
	h.set.Messages().Handle("finished", finish)
	if err := h.set.Messages().Send(h.ctx(), message.Slot("other", 1), "begin", order{To: "web/1", Type: "note", Data: []byte("1"), Times: n}); err != nil {
		t.Fatal(err)
	}
	for gen := 2; gen < 2+upgrades; gen++ {
		next := h.trial(func(c *workerset.Config) {
			talking(c, 1, log)
			c.Generation = gen
		})
		next.notesFile = log
		next.set.Messages().Handle("finished", finish)
		h.handOver(next)
		h = next
	}
	select {
	case text := <-up:
		if want := fmt.Sprintf(`{"ok":%d}`, n); text != want {
			t.Errorf("%s, not %s", text, want)
		}
	case <-time.After(patience):
		t.Fatal("it does not end")
	}
	handled(t, h.notes(), "other/1", n, nil)
	if err := h.set.Ready(h.ctx()); err != nil {
		t.Fatal(err)
	}
}
