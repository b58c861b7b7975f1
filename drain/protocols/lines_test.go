package protocols_test

import (
	"bufio"
	"context"
	"errors"
	"io"
	"testing"
	"time"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/worker"
)

// echoLines sends each line back, when it is whole. What has come of one goes with the
// connection, as keep says.
func echoLines(keep func(part string) (string, bool)) func(context.Context, *drain.Stream) {
	return func(_ context.Context, c *drain.Stream) {
		line := string(c.State())
		for r := bufio.NewReader(c); ; {
			more, err := r.ReadString('\n')
			line += more
			switch {
			case err == nil:
				if _, err := io.WriteString(c, line); err != nil {
					return
				}
				line = ""
			case !errors.Is(err, drain.ErrLeave):
				return
			default:
				kept, ok := keep(line)
				if !ok || !errors.Is(c.Move([]byte(kept)), drain.ErrNotNow) {
					return
				}
			}
		}
	}
}

func serveLines(keep func(part string) (string, bool)) worker.App {
	return func(ctx context.Context, w *worker.Worker) error {
		return w.Serve(ctx, "lines", &drain.Streams{Handler: w.StreamHandler(echoLines(keep))})
	}
}

func startLines(t *testing.T, s *service, timeout time.Duration) *load.Load {
	return startStrict(t, load.Config{Addr: s.addr, Clients: map[load.Kind]int{load.TCP: 8}, Rate: 40, Timeout: timeout})
}

// TestLines: strict clients see that connections of a protocol of one's own live on over
// upgrades: no line is lost, none comes twice, and nothing is closed.
func TestLines(t *testing.T) {
	t.Parallel()
	s := start(t, "lines", "lines=tcp://127.0.0.1:0")
	from, l := s.mark(), startLines(t, s, patience)
	for range 4 {
		goesOn(t, l, 40)
		s.upgrade()
	}
	goesOn(t, l, 40)
	r := l.Stop()
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	moved := 0
	for range 4 * 2 { // upgrades of two workers
		var line string
		line, from = s.find(from, "msg=drained")
		moved += number(t, line, "moved")
	}
	if moved < 4*8 {
		t.Errorf("%d connections have moved, not each of 8 in each of 4 upgrades", moved)
	}
	t.Logf("%d lines, %d moves", r.Started, moved)
	s.stop()
	s.clean()
}

// TestLinesWrong: a server that forgets half a line when a connection moves, or closes it
// instead, is found out.
func TestLinesWrong(t *testing.T) {
	for app, found := range map[string]func(r load.Result) bool{
		"lines forgotten": func(r load.Result) bool { return r.Failures[load.Body] > 0 },
		"lines closed":    func(r load.Result) bool { return r.ClosedIdle > 0 && r.Failures[load.EOF] > 0 },
	} {
		t.Run(app, func(t *testing.T) {
			t.Parallel()
			s := start(t, app, "lines=tcp://127.0.0.1:0")
			l := startLines(t, s, 2*time.Second)
			for late := time.Now().Add(patience); !found(l.Snapshot()) && time.Now().Before(late); {
				goesOn(t, l, 20)
				s.upgrade()
			}
			if r := l.Stop(); !found(r) || r.Check() == nil || r.Accounted() != nil {
				t.Errorf("not found out:\n%v", r)
			} else {
				t.Log(r)
			}
			s.stop()
		})
	}
}
