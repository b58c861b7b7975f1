//go:build linux

package handover

import (
	"errors"
	"log/slog"
	"os"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/logs"
	"github.com/handover-go/handover/workerset"
)

func remembering() *parent {
	p := &parent{log: slog.New(slog.DiscardHandler)}
	p.upgrades = newUpgrades(p)
	return p
}

func everyone(logs.Worker) bool { return true }

// TestRecordsTravel: the next parent knows what this one does, which goes on knowing it,
// and that this one's own upgrade was overtaken.
func TestRecordsTravel(t *testing.T) {
	t.Parallel()
	p, next := remembering(), remembering()
	worker := workerset.Worker{Group: "web", Slot: 1, ID: 2, Generation: 4, Pid: 4711, Let: "scale", Exit: "exit status 0", Dump: "why"}
	p.printed(workerset.Printed{Time: time.Now(), Group: "web", Slot: 1, ID: 2, Generation: 4, Pid: 4711, Stream: "stdout", Text: []byte("hello")})
	p.died(worker)
	worker.Cause, worker.Reason = "error", "no luck"
	p.died(worker)
	p.upgrades.last = &rolling
	files := p.giveRecords()
	if len(files) != 2 {
		t.Fatalf("%v", files)
	}
	for _, f := range files {
		if !next.takeRecords(f.Name, f.File) {
			t.Errorf("%s is not taken", f.Name)
		}
		if err := f.File.Close(); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s is left open", f.Name)
		}
	}
	got := next.History()
	if len(got) != 3 || got[0].Death.Cause != "scale" || got[0].Death.Failure || got[1].Death.Cause != "error" || !got[1].Death.Failure || got[1].Death.Dump != "why" {
		t.Fatalf("%+v", got)
	}
	if u := got[2].Upgrade; u == nil || u.Result != string(control.Stopped) || u.Generation != rolling.Generation || u.Reason == "" {
		t.Errorf("%+v", got[2])
	}
	if n := len(p.History()); n != 2 {
		t.Errorf("the one that gave it has %d entries", n)
	}
	for _, p := range []*parent{p, next} {
		if lines, last := p.Logs().Lines(everyone, 0, 10); len(lines) != 1 || last != 1 || lines[0].Text != "hello" || lines[0].Pid != 4711 {
			t.Errorf("%+v", lines)
		}
	}
}

// TestBadRecords: what can't be read does no harm, and what is none of these is left alone.
func TestBadRecords(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "garbage", `{"v":`, `[]`} {
		for _, name := range []string{historyFile, logsFile} {
			p := remembering()
			p.records.history.Add(history.Entry{Upgrade: &history.Upgrade{}})
			f, err := launch.MemoryFile(name)
			if err == nil {
				_, err = f.WriteString(text)
			}
			if err != nil {
				t.Fatal(err)
			}
			if !p.takeRecords(name, f) || len(p.History()) != 1 {
				t.Errorf("%s of %q: %v", name, text, p.History())
			}
		}
	}
	p := remembering()
	f, err := launch.MemoryFile("other")
	if err != nil {
		t.Fatal(err)
	}
	if p.takeRecords("pidfd:web/1/2/4/4711", f) || f.Close() != nil {
		t.Error("a worker's file is taken")
	}
}
