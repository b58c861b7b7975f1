//go:build linux

package control

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"
)

// upgrades is a service that hands its watchers to the test.
func upgrades(t *testing.T) (path string, watchers <-chan *Watcher) {
	t.Helper()
	path = socket(t)
	f := &fake{watchers: make(chan *Watcher, 10)}
	serve(t, path, f)
	return path, f.watchers
}

// watching is a client's call of Upgrade.
type watching struct {
	texts []string
	last  Event
	err   error
	done  chan struct{}
}

func watch(ctx context.Context, path string) *watching {
	w := &watching{done: make(chan struct{})}
	go func() {
		defer close(w.done)
		w.last, w.err = NewClient(path).Upgrade(ctx, WaitServe, func(ev Event) { w.texts = append(w.texts, ev.Text) })
	}()
	return w
}

// TestWatch: all that is told arrives, in order, and then the result.
func TestWatch(t *testing.T) {
	t.Parallel()
	path, watchers := upgrades(t)
	got := watch(within(t), path)
	w := <-watchers
	want := ""
	for i := range 100 {
		w.Tell(Event{Generation: 2, Text: fmt.Sprint("step ", i)})
		want += fmt.Sprint("step ", i, ";")
	}
	w.End(Event{Generation: 2, Result: Failed, Reason: "why", Output: strings.Repeat("line\n", 1000)})
	w.Tell(Event{Text: "too late"})
	w.End(Event{Result: Done})
	w.Drop()
	if _, err := w.Give(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("given after its end: %v", err)
	}
	<-got.done
	if s := strings.Join(got.texts, ";") + ";"; s != want || got.err != nil || got.last.Result != Failed ||
		got.last.Reason != "why" || len(got.last.Output) != 5000 || got.last.Time.IsZero() {
		t.Errorf("%s\n%+v, %v", s, got.last, got.err)
	}
}

// TestMoved: who was asked has been replaced, so that the next one is asked.
func TestMoved(t *testing.T) {
	t.Parallel()
	path, watchers := upgrades(t)
	got := watch(within(t), path)
	(<-watchers).End(Event{Result: Moved})
	(<-watchers).End(Event{Result: Done})
	if <-got.done; got.err != nil || got.last.Result != Done {
		t.Errorf("%+v, %v", got.last, got.err)
	}
}

// TestNoResult: the service is gone before it has said how it ended.
func TestNoResult(t *testing.T) {
	t.Parallel()
	path, watchers := upgrades(t)
	got := watch(within(t), path)
	w := <-watchers
	w.Tell(Event{Text: "one"})
	w.Drop()
	if <-got.done; !errors.Is(got.err, ErrNoResult) || len(got.texts) != 1 {
		t.Errorf("%v, %v", got.texts, got.err)
	}
	// Or the client does not want to know any more.
	ctx, cancel := context.WithCancel(within(t))
	got = watch(ctx, path)
	w = <-watchers
	cancel()
	if <-got.done; !errors.Is(got.err, context.Canceled) {
		t.Errorf("%v", got.err)
	}
	w.End(Event{Result: Done}) // to nobody
}

// TestDisconnect: nobody reads any more, which is no concern of the upgrade.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	path, watchers := upgrades(t)
	ctx, cancel := context.WithCancel(within(t))
	got := watch(ctx, path)
	w := <-watchers
	cancel()
	<-got.done
	for range 10 * pending {
		w.Tell(Event{Text: "step"})
	}
	if f, err := w.Give(); err == nil { // it may have been noticed, or not yet
		f.Close()
	}
	w.End(Event{Result: Done})
}

// stuck is a watcher that does not read, and has been told more than it can take.
func stuck(t *testing.T) (w *Watcher, client net.Conn) {
	t.Helper()
	path, watchers := upgrades(t)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	fmt.Fprint(client, "POST /v1/upgrade HTTP/1.1\r\nHost: handover\r\nContent-Length: 0\r\n\r\n")
	w = <-watchers
	for range 100 * pending { // it does not wait for any of them
		w.Tell(Event{Generation: 2, Text: strings.Repeat("x", 1000)})
	}
	return w, client
}

// TestStuck: a watcher that does not read is not waited for. What it reads in the end
// is whole lines.
func TestStuck(t *testing.T) {
	t.Parallel()
	t.Run("end", func(t *testing.T) {
		t.Parallel()
		w, client := stuck(t)
		w.End(Event{Result: Done})
		whole(t, client)
	})
	t.Run("give", func(t *testing.T) {
		t.Parallel()
		w, client := stuck(t)
		f, err := w.Give()
		if err != nil {
			t.Fatal(err)
		}
		w.Drop()
		next, err := ResumeWatcher(f)
		if err != nil {
			t.Fatal(err)
		}
		read := make(chan string, 1)
		go func() { read <- whole(t, client) }() // after all
		next.End(Event{Result: Done})
		if last := <-read; !strings.Contains(last, `"result":"done"`) {
			t.Errorf("it ends with %.100s", last)
		}
	})
}

// whole reads an answer to its end, fails the test if a line has been cut, and returns
// the last.
func whole(t *testing.T, client net.Conn) (line string) {
	t.Helper()
	_ = client.SetReadDeadline(time.Now().Add(patience))
	b, err := io.ReadAll(client)
	if err != nil {
		t.Error(err)
	}
	_, body, _ := strings.Cut(string(b), "\r\n\r\n")
	for line = range strings.Lines(body) {
		if !strings.HasPrefix(line, `{"time":`) || !strings.HasSuffix(line, "}\n") {
			t.Errorf("%.100q", line)
		}
	}
	return line
}

// TestGive: another process goes on where this one has stopped, without a seam, and
// this one goes on when the other is dead.
func TestGive(t *testing.T) {
	t.Parallel()
	const n = pending // so many wait, and none is left out
	path, watchers := upgrades(t)
	got := watch(within(t), path)
	w := <-watchers
	var want []string
	for range 3 {
		for range n {
			want = append(want, fmt.Sprint("old ", len(want)))
			w.Tell(Event{Generation: 2, Text: want[len(want)-1]})
		}
		f, err := w.Give() // to one that dies before it says anything
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
	for i := range n {
		want = append(want, fmt.Sprint("new ", i))
	}
	f, err := w.Give()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.CommandContext(within(t), "/proc/self/exe", fmt.Sprint(n))
	cmd.Env = append(os.Environ(), envChild+"=watch on", "GORACE=atexit_sleep_ms=0")
	cmd.ExtraFiles = []*os.File{f}
	out, err := cmd.CombinedOutput()
	f.Close()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	w.Drop()
	<-got.done
	if got.err != nil || got.last.Result != Done || got.last.Generation != 2 {
		t.Errorf("%+v, %v", got.last, got.err)
	}
	if !slices.Equal(got.texts, want) {
		t.Errorf("it was told %q", got.texts)
	}
}

func TestResumeBad(t *testing.T) {
	t.Parallel()
	f, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ResumeWatcher(f); err == nil || !strings.Contains(err.Error(), "a watcher of the upgrade is lost: ") {
		t.Error(err)
	}
	if err := f.Close(); !errors.Is(err, os.ErrClosed) {
		t.Error("the file is left open")
	}
}
