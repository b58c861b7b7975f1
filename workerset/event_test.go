//go:build linux

package workerset_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/workerset"
)

// newsLog keeps a set's events. Of every set of these tests it is checked at the end
// that what was told of each worker is a story.
type newsLog struct {
	mu     sync.Mutex
	events []workerset.Event
	more   chan struct{} // closed at the next event
	ended  bool          // Run has returned
}

func newNewsLog() *newsLog { return &newsLog{more: make(chan struct{})} }

func (l *newsLog) add(ev workerset.Event) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.ended {
		panic("told after Run has returned")
	}
	l.events = append(l.events, ev)
	close(l.more)
	l.more = make(chan struct{})
}

// check looks at all that was told, Run having returned.
func (l *newsLog) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ended = true
	stories := map[string]string{}
	for _, ev := range l.events {
		if ev.Missed != 0 || ev.Time.IsZero() {
			t.Errorf("%+v", ev)
		}
		letter := map[workerset.EventKind]string{
			workerset.EventFork: "f", workerset.EventOnline: "o", workerset.EventReady: "r",
			workerset.EventDisconnect: "d", workerset.EventExit: "x", workerset.EventClose: "c",
		}[ev.Kind]
		stories[fmt.Sprintf("%s/%d/%d/%d", ev.Group, ev.Slot, ev.ID, ev.Generation)] += letter
	}
	for who, story := range stories {
		// Of a worker that comes from, or goes to, another set it is only a part.
		if !strings.Contains("fordxc fodrxc fodxc fdxc", story) {
			t.Errorf("of worker %s it was told %q", who, story)
		}
	}
}

// of is what was told of a worker, as one line.
func (l *newsLog) of(group string, id int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	var words []string
	for _, ev := range l.events {
		if ev.Group != group || ev.ID != id {
			continue
		}
		word := string(ev.Kind)
		switch ev.Kind {
		case workerset.EventListening:
			word += "=" + ev.Socket
		case workerset.EventError:
			word += "=" + ev.Cause
		case workerset.EventExit:
			word += fmt.Sprintf("=%d,%d", ev.Code, ev.Signal)
			if ev.Voluntary {
				word += ",voluntary"
			}
		}
		words = append(words, word)
	}
	return strings.Join(words, " ")
}

// wait returns the first event that is ok.
func (l *newsLog) wait(t *testing.T, ok func(workerset.Event) bool) workerset.Event {
	t.Helper()
	deadline := time.After(patience)
	for from := 0; ; {
		l.mu.Lock()
		events, more := l.events, l.more
		l.mu.Unlock()
		for ; from < len(events); from++ {
			if ok(events[from]) {
				return events[from]
			}
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("that is not told; what is told is\n%+v", events)
		}
	}
}

func (l *newsLog) await(t *testing.T, kind workerset.EventKind, group string, id int) workerset.Event {
	t.Helper()
	return l.wait(t, func(ev workerset.Event) bool { return ev.Kind == kind && ev.Group == group && ev.ID == id })
}

// index is where in the order something was told.
func (l *newsLog) index(t *testing.T, kind workerset.EventKind, group string, id int) int {
	t.Helper()
	told := l.await(t, kind, group, id)
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Index(l.events, told)
}

func (h *harness) tells(group string, id int, want string) {
	h.t.Helper()
	if got := h.news.of(group, id); got != want {
		h.t.Errorf("of %s with id %d it is told\n%s\nnot\n%s", group, id, got, want)
	}
}

// TestEvents: a worker of this binary, from its start over its death to an orderly stop.
func TestEvents(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	fork := h.news.await(t, workerset.EventFork, "web", 1)
	if fork.Slot != 1 || fork.Generation != 1 || fork.Pid != h.pids("serving")[0] {
		t.Errorf("%+v", fork)
	}
	if ev := h.news.await(t, workerset.EventListening, "web", 1); ev.Network != "tcp" || ev.Addr != h.addr {
		t.Errorf("%+v", ev)
	}
	if err := syscall.Kill(fork.Pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if ev := h.news.await(t, workerset.EventExit, "web", 1); ev.Pid != fork.Pid || ev.Cause != "signal" || ev.Unknown {
		t.Errorf("%+v", ev)
	}
	h.news.await(t, workerset.EventReady, "web", 2)
	h.stop()
	h.tells("web", 1, "fork online listening=http ready disconnect exit=-1,9 close")
	h.tells("web", 2, "fork online listening=http ready disconnect exit=0,0,voluntary close")
}

// TestEventsOfFailures: what is wrong with a worker is told before its end, and whether
// that was an accident.
func TestEventsOfFailures(t *testing.T) {
	t.Parallel()
	for path, want := range map[string]string{
		"/fail":  "error=error disconnect exit=1,0,voluntary close",
		"/panic": "error=handler panic disconnect exit=1,0,voluntary close",
		"/done":  "disconnect exit=0,0,voluntary close",
		"/exit":  "disconnect exit=5,0 close",
		"/crash": "disconnect exit=2,0 close",
	} {
		t.Run(path, func(t *testing.T) {
			t.Parallel()
			h := newSet(t, nil).serve()
			resp, err := client.Get("http://" + h.addr + path)
			if err == nil {
				resp.Body.Close()
			}
			h.news.await(t, workerset.EventClose, "web", 1)
			h.tells("web", 1, "fork online listening=http ready "+want)
		})
	}
}

// TestEventsOfHostile: garbage ends a channel before it ends the worker.
func TestEventsOfHostile(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Env = []string{do("not JSON")} }).start()
	h.news.await(t, workerset.EventClose, "web", 1)
	h.tells("web", 1, "fork online listening=http ready error=channel disconnect exit=3,0 close")
}

// TestEventsNotStarted: of what could not be started there is an error, and no process.
func TestEventsNotStarted(t *testing.T) {
	t.Parallel()
	nothing := filepath.Join(t.TempDir(), "nothing")
	if err := os.WriteFile(nothing, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := newSet(t, func(c *workerset.Config) { c.Program.Path = nothing }).start()
	ev := h.news.await(t, workerset.EventError, "web", 1)
	if ev.Pid != 0 || !strings.Contains(ev.Reason, "has no x") {
		t.Errorf("%+v", ev)
	}
	h.news.await(t, workerset.EventClose, "web", 2) // it is tried again
	h.tells("web", 1, "error=not started close")
}

// TestEventsOfProgram: a program that knows nothing of all this, which closes its
// channel, and one that leaves somebody behind who holds its output.
func TestEventsOfProgram(t *testing.T) {
	t.Parallel()
	h := newForeign(t, "catch;notify READY=1;term;exit 4", nil).serve()
	h.stop()
	h.tells("web", 1, "fork online listening=http ready disconnect exit=4,0,voluntary close")

	dir := t.TempDir()
	file, fifo := filepath.Join(dir, "file"), filepath.Join(dir, "fifo")
	h = newForeign(t, "catch;close;wait "+file+";notify READY=1;term;exit 0", nil).start()
	h.news.await(t, workerset.EventDisconnect, "web", 1)
	if err := errors.Join(os.WriteFile(file, nil, 0o600), syscall.Mkfifo(fifo, 0o600)); err != nil {
		t.Fatal(err)
	}
	h.news.await(t, workerset.EventReady, "web", 1)
	h.stop()
	h.tells("web", 1, "fork online disconnect listening=http ready exit=0,0,voluntary close")

	leaves := func(c *workerset.Config) {
		c.Program = workerset.Program{Path: "/bin/sh", Args: []string{"-c", `
			case $HANDOVER_WORKER in web/1/1/*) (read x <` + fifo + `; echo the child ends) & echo child $!; kill -9 $$;; esac
			exec sleep 1000`}}
	}
	h = newSet(t, leaves).start()
	h.news.await(t, workerset.EventExit, "web", 1)
	if _, err := h.set.Status(h.ctx()); err != nil { // whatever comes with the exit was done
		t.Fatal(err)
	}
	if got := h.news.of("web", 1); strings.Contains(got, "close") {
		t.Errorf("its child has not closed its output: %s", got)
	}
	f, err := os.OpenFile(fifo, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	h.news.await(t, workerset.EventClose, "web", 1)
	h.printed("the child ends")
	h.stop()
	h.tells("web", 1, "fork online disconnect exit=-1,9 close")
	h.reap("child ")

	// When the set has ended nobody reads on, and that is a close, too.
	h = newSet(t, leaves).start()
	h.news.await(t, workerset.EventExit, "web", 1)
	h.stop()
	h.tells("web", 1, "fork online disconnect exit=-1,9 close")
	if f, err = os.OpenFile(fifo, os.O_WRONLY, 0); err != nil {
		t.Fatal(err)
	}
	f.Close()
	h.reap("child ")
}

// reap waits for a process that a worker has left, of which the output says the pid.
func (h *harness) reap(before string) {
	h.t.Helper()
	b, err := os.ReadFile(h.out)
	if err != nil {
		h.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(b), before)
	pid, err := strconv.Atoi(strings.Fields(rest)[0])
	if err == nil {
		_, err = unix.Wait4(pid, nil, 0, nil)
	}
	if err != nil {
		h.t.Errorf("%q: %v", b, err)
	}
}

// TestEventsOfNode: a Node program, that says that it is ready by process.send.
func TestEventsOfNode(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	h := newSet(t, func(c *workerset.Config) {
		c.Program = workerset.Program{Path: node, Args: []string{"-e", `
			const server = require('http').createServer((req, res) => res.end('hello'));
			server.listen({ fd: 3 }, () => process.send('ready'));
			process.on('SIGTERM', () => server.close(() => process.exit(0)));`}}
		c.Groups[0].Ready.By = workerset.ReadyChannel
	}).serve()
	pid := h.pids("serving")[0]
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.news.await(t, workerset.EventReady, "web", 2)
	h.stop()
	h.tells("web", 1, "fork online listening=http ready disconnect exit=-1,9 close")
	h.tells("web", 2, "fork online listening=http ready disconnect exit=0,0,voluntary close")
}

// TestEventsOverUpgrade: a worker that is taken over is told of by both parents, and
// nothing twice.
func TestEventsOverUpgrade(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "ready")
	h := newSet(t, func(c *workerset.Config) { c.Groups[0].Count = 2 }).serve()
	// One that is not ready yet.
	slow := newForeign(t, "catch;wait "+file+";notify READY=1;term;exit 0", func(c *workerset.Config) {
		c.Groups[0].Ready.By = workerset.ReadyNotify
	}).start()
	slow.state(1, "starting")

	next := h.trial(func(c *workerset.Config) { c.Groups[0].Count = 2 })
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	h.tells("web", 1, "fork online listening=http ready")
	h.tells("web", 2, "fork online listening=http ready")
	old := func(id int) (story []workerset.EventKind) {
		next.news.mu.Lock()
		defer next.news.mu.Unlock()
		for _, ev := range next.news.events {
			if ev.Generation == 1 && ev.ID == id {
				story = append(story, ev.Kind)
				if ev.Kind == workerset.EventExit && (!ev.Voluntary || ev.Code != 0) {
					t.Errorf("%+v", ev)
				}
			}
		}
		return story
	}
	for id := 1; id <= 2; id++ {
		next.news.wait(t, func(ev workerset.Event) bool {
			return ev.Generation == 1 && ev.ID == id && ev.Kind == workerset.EventClose
		})
		if got := fmt.Sprint(old(id)); got != "[disconnect exit close]" {
			t.Errorf("the next parent tells %v of worker %d", got, id)
		}
	}

	heir := slow.trial(func(c *workerset.Config) { c.Groups[0].Count = 1 })
	heir.set.Hold() // so that nobody replaces it before it is ready
	slow.handOver(heir)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	heir.news.wait(t, func(ev workerset.Event) bool { return ev.Generation == 1 && ev.Kind == workerset.EventReady })
	heir.set.Release()
	slow.tells("web", 1, "fork online")
}

// TestEventsGivenBack: a parent that goes on after all has told nothing meanwhile, and
// makes up for it.
func TestEventsGivenBack(t *testing.T) {
	t.Parallel()
	h := newSet(t, nil).serve()
	e := h.yield()
	pid := h.news.await(t, workerset.EventFork, "web", 1).Pid
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	e.Close()
	h.set.Resume()
	h.news.await(t, workerset.EventReady, "web", 2)
	h.news.await(t, workerset.EventClose, "web", 1)
	h.tells("web", 1, "fork online listening=http ready disconnect exit=-1,9 close")
}

// TestEventsSlow: a function that does not come back holds up nobody but the end, and
// it may ask the set.
func TestEventsSlow(t *testing.T) {
	t.Parallel()
	goOn := make(chan struct{})
	var h *harness
	h = newSet(t, func(c *workerset.Config) {
		log := c.Events
		c.Events = func(ev workerset.Event) {
			<-goOn
			if _, err := h.set.Status(t.Context()); err != nil && ev.Kind == workerset.EventFork {
				t.Error(err)
			}
			log(ev)
		}
	}).serve()
	first := h.pids("serving")[0]
	if err := syscall.Kill(first, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	h.state(2, "serving")
	close(goOn)
	h.news.await(t, workerset.EventReady, "web", 2)
	h.stop()
	h.tells("web", 2, "fork online listening=http ready disconnect exit=0,0,voluntary close")
}
