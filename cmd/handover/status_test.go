//go:build unix

package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/internal/logs"
	"github.com/handover-go/handover/workerset"
)

var now = time.Date(2024, 5, 6, 8, 0, 0, 0, time.UTC)

func ago(d time.Duration) time.Time { return now.Add(-d) }

// busy is a service about which there is a lot to say.
func busy() control.Status {
	worker := workerset.Worker{Group: "web", Slot: 1, ID: 4, Generation: 3, Pid: 1234567, State: "serving", Started: ago(time.Hour), Usage: &workerset.Usage{CPU: 36, RSS: 100 << 20}, Active: 12, Idle: 10, Served: 123456, MovedIn: 3, Restarts: 2}
	draining := workerset.Worker{
		Group: "web", Slot: 1, ID: 1, Generation: 2, Pid: 1234500, State: "draining", Started: ago(26 * time.Hour), Drain: ago(10 * time.Second), Deadline: now.Add(15 * time.Second),
		Usage: &workerset.Usage{CPU: 3600, RSS: 2 << 30}, Active: 3, Served: 99, MovedOut: 40,
		Conns: []workerset.Conn{{Peer: "192.0.2.1:4711", State: "hijacked", AgeMS: 3_700_000}, {State: "active", AgeMS: 2000}},
	}
	failing := workerset.Worker{Group: "web", Slot: 2, ID: 5, Generation: 3, Pid: 1234568, State: "condemned", Started: ago(time.Minute), Cause: "error", Reason: "lost the database\nand more"}
	foreign := workerset.Worker{Group: "js", Slot: 1, ID: 1, Generation: 2, Pid: 1234570, State: "draining", Started: ago(time.Minute), Drain: ago(time.Second), Deadline: now.Add(24 * time.Second), Status: "says\x1bgood bye"}
	return control.Status{
		Service: "shop", Generation: 3, Since: ago(time.Hour), Pid: 4711, Anchor: 4700, Program: "/srv/shop/current/shop", Listen: []string{"http=tcp://[::]:8080"},
		Build:    image.Build{Path: "/srv/shop/current/shop", Version: "v1.2.3", Go: "go1.26.0"},
		Warnings: []string{"/srv/shop/current/shop is not what runs (v1.2.4 on disk, v1.2.3 runs): 'handover upgrade' changes to it"},
		Stopping: true, Upgrading: true, Upgrade: &control.Outcome{Time: ago(time.Minute), Generation: 4, Result: control.Failed, Reason: "exit status 3\nmore"},
		Groups: []workerset.GroupStatus{
			{
				Name: "web", Count: 2, Failures: 3, Restarts: 4, Halted: "the roll has stopped", Workers: []workerset.Worker{draining, failing, worker},
				Deaths: []workerset.Death{{Time: ago(30 * time.Second), Slot: 2, ID: 3, Generation: 3, Pid: 1234566, Cause: "crash", Reason: "panic: no luck"}},
			},
			{Name: "js", Count: 1, WaitsFor: []string{"web"}, Workers: []workerset.Worker{foreign}, Waiting: []workerset.Waiting{{Slot: 1, Failures: 3, Reason: "exit status 1", Until: now.Add(4 * time.Second)}}},
		},
	}
}

func events() control.History {
	return control.History{Entries: []history.Entry{
		{N: 7, Time: ago(3 * time.Hour), Death: &history.Death{Group: "web", Slot: 2, ID: 3, Generation: 3, Pid: 1234566, Cause: "crash", Failure: true, Reason: "panic: no luck\nmore", Exit: "exit status 2", Started: ago(4 * time.Hour), Served: 1000, Dump: "panic: no luck\n\ngoroutine 1 [running]:\nmain.main()\n\t/x.go:1 +0x1\x1b\n", DumpCut: 100}},
		{N: 8, Time: ago(time.Hour), Upgrade: &history.Upgrade{Generation: 3, Began: ago(time.Hour + 1500*time.Millisecond), Result: "done"}},
		{N: 9, Time: ago(time.Minute), Death: &history.Death{Group: "web", Slot: 1, ID: 1, Generation: 2, Pid: 1234500, Cause: "upgrade", Exit: "killed by SIGKILL", Started: ago(26 * time.Hour), Drain: ago(2 * time.Minute), Served: 99, MovedIn: 1, MovedOut: 40, Cut: 3, Terminated: true, Killed: true}},
		{N: 10, Time: ago(time.Second), Upgrade: &history.Upgrade{Generation: 4, Result: "failed", Reason: "exit status 3", Output: "no database\ntry again"}},
		{N: 11, Time: now, Death: &history.Death{Group: "web", Slot: 2, ID: 9, Generation: 3, Cause: "not started", Failure: true, Exit: "it was not there"}},
	}}
}

// TestShown: what a person sees, in each width. Look at what has changed in the golden
// files.
func TestShown(t *testing.T) {
	t.Parallel()
	shown := map[string]string{}
	for name, s := range map[string]style{"pipe": {}, "80": {width: 80}, "40": {width: 40}, "5": {width: 5}, "colour": {width: 100, colour: true}} {
		shown["status-"+name] = strings.Join(view{style: s, st: busy(), now: now}.lines(), "\n") + "\n"
		var b strings.Builder
		printHistory(&b, events(), s, now)
		shown["history-"+name] = b.String()
		for _, line := range strings.Split(shown["status-"+name]+b.String(), "\n") {
			if s.width > 0 && columns(line) > s.width {
				t.Errorf("%s: a line of %d columns: %q", name, columns(line), line)
			}
			if plain := strings.NewReplacer("\x1b[0m", "", "\x1b[1m", "", "\x1b[2m", "", "\x1b[31m", "", "\x1b[32m", "", "\x1b[33m", "", "\x1b[36m", "").Replace(line); strings.Contains(plain, "\x1b") || !s.colour && plain != line {
				t.Errorf("%s: %q steers the terminal", name, line)
			}
		}
	}
	var b strings.Builder
	for _, e := range events().Entries {
		printEntry(&b, e)
		b.WriteString("\n")
	}
	shown["entries"] = strings.ReplaceAll(b.String(), now.Local().Format("Z07:00"), "Z")
	printHistory(&b, control.History{}, style{}, now)
	if !strings.HasSuffix(b.String(), "\nnothing has happened yet\n") {
		t.Errorf("%q", b.String())
	}
	for name, text := range shown {
		path := filepath.Join("testdata", "shown", name+".txt")
		if golden.Update() {
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil || string(want) != text {
			t.Errorf("%s is\n%s\nnot\n%s(%v; with -update it is written)", path, text, want, err)
		}
	}
}

// TestCPU: it is counted from when the same worker was shown last, or from its start.
func TestCPU(t *testing.T) {
	t.Parallel()
	w := workerset.Worker{Pid: 5, Started: ago(100 * time.Second), Usage: &workerset.Usage{CPU: 10, RSS: 1 << 20}}
	before := func(cpu float64, started time.Time) *control.Status {
		return &control.Status{Groups: []workerset.GroupStatus{{Workers: []workerset.Worker{{Pid: 5, Started: started, Usage: &workerset.Usage{CPU: cpu}}}}}}
	}
	for _, c := range []struct {
		v    view
		want string
	}{
		{view{now: now}, "10.0%"},
		{view{now: now, before: before(8, w.Started), beforeAt: ago(4 * time.Second)}, "50.0%"},
		{view{now: now, before: before(8, ago(time.Hour)), beforeAt: ago(4 * time.Second)}, "10.0%"}, // another one
		{view{now: now, before: before(11, w.Started), beforeAt: ago(4 * time.Second)}, "0.0%"},
		{view{now: w.Started}, "-"},
	} {
		if cpu, mem := c.v.usage(w); cpu != c.want || mem != "1.0M" {
			t.Errorf("%q, %q, not %q", cpu, mem, c.want)
		}
	}
}

// TestLogLine: nothing of a line steers the terminal.
func TestLogLine(t *testing.T) {
	t.Parallel()
	line := logs.Line{Time: now.Local(), Worker: logs.Worker{Group: "web", Slot: 1, Pid: 7}, Stream: "stderr", Text: "a\x1b[2Jb\tc"}
	want := now.Local().Format("15:04:05.000") + " web/1 7 | a?[2Jb\tc"
	if got := logLine(line, style{}); got != want {
		t.Errorf("%q, not %q", got, want)
	}
	if got := logLine(line, style{colour: true}); !strings.Contains(got, " \x1b[31m|\x1b[0m a?") {
		t.Errorf("%q", got)
	}
	one := []logs.Worker{{Group: "web", Slot: 1, Pid: 7}}
	if got := unkept(one); !strings.Contains(got, "of what web/1 (pid 7) prints: ") {
		t.Error(got)
	}
	if got := unkept(append(one, logs.Worker{Group: "web", Slot: 2, Pid: 8})); !strings.Contains(got, "of what web/1 (pid 7), web/2 (pid 8) print: ") {
		t.Error(got)
	}
}
