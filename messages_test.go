package handover_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/worker"
)

// messagesOf is what the parent does in tests of messages: it counts, and greets every
// worker as soon as it decides.
func messagesOf(cfg *handover.Config) {
	if os.Getenv("TEST_APP") != "messages" {
		return
	}
	var n atomic.Int64
	cfg.Handlers = map[string]message.Handler{
		"count": func(context.Context, *message.Message) (any, error) { return n.Add(1), nil },
	}
	cfg.InParent = func(ctx context.Context, m *message.Endpoint) {
		if err := m.Send(ctx, message.Group("web"), "greet", os.Getpid()); err != nil && ctx.Err() == nil {
			slog.Error("greeting failed", "error", err)
		}
		<-ctx.Done()
	}
}

// messagesApp sends numbers to slot 1 of its group and to the parent as long as it
// serves, and says in the end what became of them. What it gets it notes in a file.
func messagesApp(ctx context.Context, w *worker.Worker) error {
	notes, err := os.OpenFile(os.Getenv("TEST_NOTES"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	e := w.Messages()
	e.Handle("note", func(_ context.Context, m *message.Message) (any, error) {
		_, err := fmt.Fprintf(notes, "%v/%d/%d %s\n", m.From, m.From.ID, m.From.Generation, m.Data)
		return nil, err
	})
	e.Handle("greet", func(_ context.Context, m *message.Message) (any, error) {
		slog.Info("greeted", "worker", w.Name(), "by", string(m.Data))
		return nil, nil
	})
	w.Go(func(ctx context.Context) error {
		ok, bad, counted, uncounted := 0, "", 0, 0
		for n := 1; ctx.Err() == nil; n++ {
			switch err := e.Send(context.Background(), message.Slot("web", 1), "note", n); {
			case err == nil:
				ok++
			case errors.Is(err, message.ErrLost):
				bad += fmt.Sprintf(",%d", n)
			default:
				bad += fmt.Sprintf(",-%d", n)
			}
			if err := e.Request(context.Background(), message.Parent(), "count", n, nil); err != nil {
				uncounted++
			} else {
				counted++
			}
		}
		slog.Info("sent", "who", fmt.Sprintf("%s/%d/%d", w.Name(), w.ID(), w.Generation()), "ok", ok, "bad", strings.TrimPrefix(bad, ","),
			"counted", counted, "uncounted", uncounted)
		return nil
	})
	return w.Serve(ctx, "http", &http.Server{Handler: http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, w.Name()) })})
}

var sentLine = regexp.MustCompile(`msg=sent who=(\S+) ok=(\d+) bad="?([-\d,]*)"? counted=\d+ uncounted=(\d+)`)

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// printedLines are all that the service has printed.
func (s *service) printedLines() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.lines)
}

// TestMessagesOverUpgrades: workers talk to one another and to the parent while the
// service is upgraded, and while workers are killed: each message is handled once, in
// the order of its sender, or its sender knows that it may not have been.
func TestMessagesOverUpgrades(t *testing.T) {
	notes := filepath.Join(t.TempDir(), "notes")
	s := startService(t, 2, "TEST_APP=messages", "TEST_NOTES="+notes)
	kills := 0
	for i := range 8 {
		s.upgrade()
		if i%4 == 3 {
			kills++
			from := s.mark()
			if err := syscall.Kill(s.workers()[0], syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			if _, err := s.waitFrom(from, has("killed by SIGKILL")); err != nil {
				t.Fatal(err)
			}
		}
	}
	until(t, 30*time.Second, func() string {
		// Those that are killed may be greeted as they die.
		if n := s.count(has("msg=greeted")); n < 18-kills {
			return fmt.Sprintf("%d greetings", n)
		}
		return ""
	})
	s.stop()
	if n := s.count(has("greeting failed")); n > kills {
		t.Errorf("%d greetings failed", n)
	}
	b, err := os.ReadFile(notes)
	if err != nil {
		t.Fatal(err)
	}
	handled := map[string][]int{}
	for line := range strings.Lines(string(b)) {
		var n int
		who, rest, _ := strings.Cut(line, " ")
		if _, err := fmt.Sscan(rest, &n); err != nil {
			t.Fatal(err)
		}
		handled[who] = append(handled[who], n)
	}
	said, total, lost, uncounted := 0, 0, 0, 0
	for _, line := range s.printedLines() {
		f := sentLine.FindStringSubmatch(line)
		if f == nil {
			continue
		}
		said++
		who, ok := f[1], number(t, f[2])
		uncounted += number(t, f[4])
		may, mayNot := map[int]bool{}, map[int]bool{}
		for _, text := range strings.Split(f[3], ",") {
			if text == "" {
				continue
			}
			if n := number(t, text); n < 0 {
				mayNot[-n] = true
			} else {
				may[n] = true
			}
		}
		list := handled[who]
		delete(handled, who)
		if !slices.IsSorted(list) || len(slices.Compact(slices.Clone(list))) != len(list) {
			t.Errorf("%s: not in order, or twice", who)
		}
		good := 0
		for _, n := range list {
			if mayNot[n] {
				t.Errorf("%s: %d was handled, and said not to be", who, n)
			}
			if !may[n] {
				good++
			}
		}
		if good != ok {
			t.Errorf("%s: %d handled of %d", who, good, ok)
		}
		total += ok
		lost += len(may)
	}
	// Those that were killed can't say anything, and nor can who was cut at the stop.
	if said < 16 || len(handled) > 4 || total == 0 || lost > 4 || uncounted > said {
		t.Errorf("%d have said what they sent, %d not, %d handled, %d lost, %d not counted", said, len(handled), total, lost, uncounted)
	}
	t.Logf("%d senders, %d handled, %d lost, %d not counted by a parent", said, total, lost, uncounted)
}
