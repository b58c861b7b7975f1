//go:build linux

package handover_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/fault"
	"github.com/handover-go/handover/workerset"
)

// asked is something that was asked for, and how it ends.
type asked struct {
	wish  control.Wish
	last  control.Event
	err   error
	texts []string
	done  chan struct{}
}

// askFor asks for something and does not wait.
func askFor(ctx context.Context, c *control.Client, w control.Wish) *asked {
	a := &asked{wish: w, done: make(chan struct{})}
	go func() {
		defer close(a.done)
		a.last, a.err = c.Act(ctx, w, func(ev control.Event) { a.texts = append(a.texts, ev.Text) })
	}()
	return a
}

// is waits for the end and checks it.
func (a *asked) is(t *testing.T, want control.Result) {
	t.Helper()
	if <-a.done; a.err != nil || a.last.Result != want {
		t.Errorf("%+v: %+v, %v after %q", a.wish, a.last, a.err, a.texts)
	}
}

func status(t *testing.T, c *control.Client) control.Status {
	t.Helper()
	st, _, err := c.Status(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	return st
}

func limited(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

// halt stops a worker, so that what waits for its drain goes on waiting.
func halt(t *testing.T, pid int) {
	t.Helper()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	until(t, 10*time.Second, func() string {
		if s := statusOf(pid, "State"); !strings.HasPrefix(s, "T") {
			return fmt.Sprintf("process %d is not stopped: %s", pid, s)
		}
		return ""
	})
}

// is waits until a worker is in a state.
func is(t *testing.T, c *control.Client, pid int, state string) {
	t.Helper()
	until(t, 20*time.Second, func() string {
		ws := status(t, c).Groups[0].Workers
		if !slices.ContainsFunc(ws, func(w workerset.Worker) bool { return w.Pid == pid && w.State == state }) {
			return fmt.Sprintf("%d is not %s: %+v", pid, state, ws)
		}
		return ""
	})
}

// TestUpgradeIsTrue: after an upgrade no old worker accepts, whether it was quick to obey
// or not.
func TestUpgradeIsTrue(t *testing.T) {
	s, path := controlled(t, 2)
	client := control.NewClient(path)
	old := status(t, client).Groups[0].Workers[0]
	halt(t, old.Pid)
	drains := make(chan struct{})
	upgraded := make(chan error, 1)
	go func() {
		ev, err := client.Upgrade(limited(t), control.WaitServe, func(ev control.Event) {
			if strings.HasSuffix(ev.Text, fmt.Sprintf(" of generation 1 drains, pid %d", old.Pid)) {
				close(drains)
			}
		})
		if err == nil && ev.Result != control.Done {
			err = errors.New(ev.Reason)
		}
		upgraded <- err
	}()
	select {
	case <-drains:
	case err := <-upgraded:
		t.Fatal(err)
	}
	is(t, client, old.Pid, "draining")
	// Whoever answers that has looked whether all is done.
	if u := status(t, client).Upgrade; u == nil || u.Result != control.Rolling {
		t.Errorf("a worker was told to drain, and has not: %+v", u)
	}
	if err := syscall.Kill(old.Pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	if err := <-upgraded; err != nil {
		t.Fatal(err)
	}
	c := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for range 200 {
		resp, err := c.Get("http://" + s.addr + "/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if w := resp.Header.Get("X-Worker"); !strings.Contains(w, "generation=2 ") {
			t.Fatalf("after the upgrade %q accepts", w)
		}
	}
	s.stop()
}

// TestWishesAtEachStep: what somebody waits for is fulfilled by whoever decides in the
// end, and he is told, whichever parent dies at which step of an upgrade. Only if the one
// dies that he has asked, before another has his connection, he has to look himself.
func TestWishesAtEachStep(t *testing.T) {
	const none = "none dies"
	for _, step := range append([]string{none}, fault.Upgrade...) {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step)
			worker := status(t, f.control).Groups[0].Workers[1].Pid
			halt(t, worker)
			drain := askFor(limited(t), f.control, control.Wish{Verb: control.Drain, Worker: "web/2"})
			is(t, f.control, worker, "draining")
			wishes := []*asked{drain,
				askFor(limited(t), f.control, control.Wish{Verb: control.Scale, Group: "web", Count: 3}),
				askFor(limited(t), f.control, control.Wish{Verb: control.Restart}),
				askFor(limited(t), f.control, control.Wish{Verb: control.Restart, Worker: "web/1"}),
			}
			until(t, 20*time.Second, func() string {
				if n := status(t, f.control).Groups[0].Count; n != 3 {
					return fmt.Sprintf("the count is %d", n)
				}
				return ""
			})
			from := f.upgradeTo(syscall.SIGKILL)
			if step != none {
				f.hit()
			} else if _, err := f.waitFrom(from, has(`msg="worker serves"`, "generation=2 ")); err != nil {
				t.Fatal(err)
			}
			_ = syscall.Kill(worker, syscall.SIGCONT)
			got := f.outcome(from)
			told := got == oldDecides || slices.Contains([]string{none, fault.OldCommitted, fault.OldHeardReady, fault.OldNamedNew, fault.OldReplaced}, step)
			for _, w := range wishes {
				if told {
					w.is(t, control.Done)
				} else if <-w.done; w.err != nil && !errors.Is(w.err, control.ErrNoResult) && !errors.Is(w.err, control.ErrNoService) {
					t.Errorf("%+v: %v", w.wish, w.err)
				}
			}
			// By the time of the answer that name is another's, who is left alone.
			if n := strings.Count(strings.Join(drain.texts, "\n"), "worker web/2, pid "); told && n != 1 {
				t.Errorf("asked for %d times: %q", n, drain.texts)
			}
			st := status(t, f.control)
			if told && st.Groups[0].Count != 3 {
				t.Errorf("scaled to %d", st.Groups[0].Count)
			}
			// An upgrade is a restart: those that it has started are not replaced once more.
			if step == none {
				for _, w := range st.Groups[0].Workers {
					if !w.Stale && w.ID > 3 {
						t.Errorf("three workers of this generation were to be started, and there is %+v", w)
					}
				}
			}
			askFor(limited(t), f.control, control.Wish{Verb: control.Scale, Count: 2}).is(t, control.Done)
			f.settle()
			askFor(limited(t), f.control, control.Wish{Verb: control.Stop}).is(t, control.Done)
			f.ended(0)
		})
	}
}

// TestStopByControlAtEachStep: whoever decides in the end stops the service, and says so.
func TestStopByControlAtEachStep(t *testing.T) {
	for _, step := range fault.Upgrade {
		t.Run(step, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			f := startFaulty(t, step)
			h := holdFor(t, f.addr, time.Second)
			f.upgradeTo(syscall.SIGSTOP)
			pid := f.stopped()
			stop := askFor(limited(t), f.control, control.Wish{Verb: control.Stop})
			_ = syscall.Kill(pid, syscall.SIGCONT)
			stop.is(t, control.Done)
			h.answeredBy(t, "generation=1 ")
			f.ended(0)
		})
	}
}

// TestWishesDuringTrial: before an upgrade commits all is as ever; and whatever becomes of
// it, nothing is lost.
func TestWishesDuringTrial(t *testing.T) {
	s, path := controlled(t, 2)
	client := control.NewClient(path)
	l := s.load(20)
	s.replace(func(tmp string) error {
		return os.WriteFile(tmp, []byte("#!/bin/sh\necho hanging\nsleep 1000\n"), 0o755)
	})
	upgrade := asking(t, path)
	s.await(has("hanging"))
	wishes := []*asked{
		askFor(limited(t), client, control.Wish{Verb: control.Restart}),
		askFor(limited(t), client, control.Wish{Verb: control.Scale, Count: 4}),
		askFor(limited(t), client, control.Wish{Verb: control.Reopen}),
	}
	for _, w := range wishes {
		w.is(t, control.Done)
	}
	askFor(limited(t), client, control.Wish{Verb: control.Drain, Worker: "web/4"}).is(t, control.Done)
	st := status(t, client)
	if !st.Upgrading || st.Groups[0].Count != 4 {
		t.Errorf("%+v", st)
	}
	check(t, l)
	askFor(limited(t), client, control.Wish{Verb: control.Stop}).is(t, control.Done)
	if ev := result(t, upgrade); ev.Result != control.Failed {
		t.Errorf("%+v", ev)
	}
	s.awaitExit(0)
}

// TestUnknownWorkers: what there is not is said, and nothing happens.
func TestUnknownWorkers(t *testing.T) {
	s, path := controlled(t, 1)
	client := control.NewClient(path)
	before := status(t, client).Groups[0].Workers[0]
	there := fmt.Sprintf("there is web/1 (pid %d)", before.Pid)
	for _, c := range []struct {
		wish control.Wish
		want string
	}{
		{control.Wish{Verb: control.Restart, Worker: "web/2"}, "no such worker: web/2; " + there},
		{control.Wish{Verb: control.Drain, Worker: "job/1"}, "no such worker: job/1; " + there},
		{control.Wish{Verb: control.Kill, Worker: "1"}, fmt.Sprintf("no such worker: pid 1 (an ID is no name: that of web/1 is 1, its pid %d); ", before.Pid) + there},
		{control.Wish{Verb: control.Scale, Group: "job", Count: 2}, `no such group: "job"; there is web`},
	} {
		a := askFor(limited(t), client, c.wish)
		if a.is(t, control.Failed); a.last.Reason != c.want {
			t.Errorf("%+v: %s\nwant %s", c.wish, a.last.Reason, c.want)
		}
	}
	if after := status(t, client).Groups[0]; len(after.Workers) != 1 || after.Workers[0].Pid != before.Pid || after.Count != 1 {
		t.Errorf("%+v", after)
	}
	s.stop()
}

// TestStopsAreTold: who stops the service waits until it is gone, and hears the truth.
func TestStopsAreTold(t *testing.T) {
	t.Run("a worker is killed", func(t *testing.T) {
		s, path := controlled(t, 2, "TEST_DRAIN_TIMEOUT=1ms")
		client := control.NewClient(path)
		halt(t, status(t, client).Groups[0].Workers[0].Pid)
		a, b := askFor(limited(t), client, control.Wish{Verb: control.Stop}), askFor(limited(t), client, control.Wish{Verb: control.Stop})
		a.is(t, control.Stopped)
		b.is(t, control.Stopped)
		if want := "not all workers have ended by themselves: 1 worker has ended by itself, 1 was told to exit because its time was up, 1 was killed"; a.last.Reason != want {
			t.Error(a.last.Reason)
		}
		if _, err := os.Stat(path); !os.IsNotExist(err) {
			t.Errorf("the control socket is left: %v", err)
		}
		s.awaitExit(0)
	})
	t.Run("now", func(t *testing.T) {
		s, path := controlled(t, 2)
		client := control.NewClient(path)
		halt(t, status(t, client).Groups[0].Workers[0].Pid)
		a := askFor(limited(t), client, control.Wish{Verb: control.Stop}) // which would take its time
		s.await(has(`msg="asked for on the control socket"`, "what=stop"))
		b := askFor(limited(t), client, control.Wish{Verb: control.Stop, Now: true})
		b.is(t, control.Done)
		a.is(t, control.Done)
		s.awaitExit(0)
	})
	t.Run("the parent dies", func(t *testing.T) {
		s, path := controlled(t, 1)
		client := control.NewClient(path)
		st := status(t, client)
		halt(t, st.Groups[0].Workers[0].Pid)
		a := askFor(limited(t), client, control.Wish{Verb: control.Stop})
		is(t, client, st.Groups[0].Workers[0].Pid, "draining")
		if err := syscall.Kill(st.Pid, syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		if <-a.done; !errors.Is(a.err, control.ErrNoResult) {
			t.Errorf("%+v, %v", a.last, a.err)
		}
		_ = syscall.Kill(st.Groups[0].Workers[0].Pid, syscall.SIGCONT)
		s.awaitExit(0, 1, 137)
	})
}
