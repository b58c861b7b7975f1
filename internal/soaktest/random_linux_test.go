package soaktest_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/shop"
)

// TestAtRandom has anything happen to a service, at any time. When it is over the service is as it
// should be, as after each death of docs/faults.md, and clients have lost only what workers had that
// were killed. What happens is made of a number, of which each long run has others; one again:
//
//	SOAK_SEED=4711 go test ./internal/soaktest -run TestAtRandom
//
// Only the machine's pace is another one then.
func TestAtRandom(t *testing.T) {
	if v := os.Getenv("SOAK_SEED"); v != "" {
		seed, err := strconv.ParseUint(v, 10, 64)
		if err != nil {
			t.Fatalf("SOAK_SEED: %v", err)
		}
		live(t, script(seed, longScript))
		return
	}
	if share(t) == 0 {
		for seed := range uint64(3) {
			t.Run(fmt.Sprintf("SOAK_SEED=%d", seed), func(t *testing.T) { live(t, script(seed, shortScript)) })
		}
		return
	}
	until := time.Now().Add(time.Duration(share(t) * float64(10*time.Minute)))
	const lanes = 2 // most of a life is waiting
	for lane := range lanes {
		t.Run(fmt.Sprint("lane", lane), func(t *testing.T) {
			t.Parallel()
			n := 0
			for ; time.Now().Before(until) && !t.Failed(); n++ {
				seed := rand.Uint64N(1e9)
				t.Run(fmt.Sprintf("SOAK_SEED=%d", seed), func(t *testing.T) { live(t, script(seed, longScript)) })
			}
			t.Logf("%d services", n)
		})
	}
}

// life is a service to which things happen.
type life struct {
	*shop.Shop
	t    *testing.T
	wg   sync.WaitGroup // what is under way
	lost []excuse

	mu     sync.Mutex
	stands map[int]*os.Process // those that are to go on, by pid
}

// live has a script happen.
func live(t *testing.T, events []event) {
	t.Helper()
	for _, e := range events {
		t.Log(e)
	}
	f := &life{Shop: start(t, shop.EnvHung+"=4s"), t: t, stands: map[int]*os.Process{}}
	parent, anchor := f.Descriptors(f.Parent()), f.Descriptors(f.Anchor)
	l := begin(t, f.Shop, light)
	anchored := true
	for _, e := range events {
		if e.deed == killAnchor {
			anchored = false
			f.over()
			if _, err := f.Kill(f.Anchor); err != nil {
				t.Fatal(err)
			}
			continue
		}
		f.do(e)
		if e.settle {
			f.over()
		}
		time.Sleep(e.pause)
	}
	f.wg.Wait()
	f.Settle(anchored)
	ctx, cancel := context.WithTimeout(t.Context(), shop.Patience)
	defer cancel()
	if ev, err := f.Control.Act(ctx, control.Wish{Verb: control.Scale, Group: "web", Count: 2}, func(control.Event) {}); err != nil || ev.Result != control.Done {
		t.Errorf("scale: %+v, %v", ev, err)
	}
	f.Upgrade()
	f.Settle(anchored)
	f.Flat("the parent", f.Parent(), parent)
	if anchored {
		f.Flat("the anchor", f.Anchor, anchor)
	}
	r := end(t, l, f.lost...)
	t.Logf("%d requests, %d failed, %d lost with their workers", r.Started, r.Failures.Total(), r.Excused)
	f.Stop(anchored)
}

// over waits until nothing is under way, and all is as it should be.
func (f *life) over() {
	f.t.Helper()
	f.wg.Wait()
	f.Settle(true)
}

// do has something happen. It does not wait for what comes of it.
func (f *life) do(e event) {
	f.t.Helper()
	switch e.deed {
	case upgrade:
		if err := syscall.Kill(f.Anchor, syscall.SIGHUP); err != nil {
			f.t.Fatal(err)
		}
	case kill, stop:
		if pid := f.target(e); pid != 0 {
			f.hurt(e, pid)
		}
	case roll:
		f.act(control.Wish{Verb: control.Restart})
	case restart, drains:
		f.act(control.Wish{Verb: map[deed]control.Verb{restart: control.Restart, drains: control.Drain}[e.deed], Worker: fmt.Sprintf("web/%d", e.n)})
	case scale:
		f.act(control.Wish{Verb: control.Scale, Group: "web", Count: e.n})
	case rollback:
		f.ask(e, func(ctx context.Context) error {
			_, err := f.Control.Rollback(ctx, control.WaitServe, func(control.Event) {})
			return err
		})
	}
}

// act asks for something on the control socket.
func (f *life) act(w control.Wish) {
	f.ask(w, func(ctx context.Context) error {
		_, err := f.Control.Act(ctx, w, func(control.Event) {})
		return err
	})
}

// ask asks beside all else. The answer may be anything, but there is one, or the end of whoever
// would have given it.
func (f *life) ask(what any, do func(context.Context) error) {
	f.wg.Go(func() {
		ctx, cancel := context.WithTimeout(f.t.Context(), shop.Patience)
		defer cancel()
		if err := do(ctx); ctx.Err() != nil {
			f.t.Errorf("%+v: no answer: %v", what, err)
		}
	})
}

// target is the victim's pid, or 0 where there is none at the moment.
func (f *life) target(e event) int {
	f.t.Helper()
	role := map[string]string{"worker": "worker web/", "agent": "worker agent/"}[e.victim]
	if role == "" {
		role = "parent"
	}
	switch pids := f.Who(role); {
	case len(pids) == 0:
		return 0
	case e.victim == "old parent":
		return pids[0]
	case e.victim == "new parent":
		return pids[len(pids)-1]
	default:
		return pids[e.n%len(pids)]
	}
}

// hurt kills a process, or stops it for a time.
func (f *life) hurt(e event, pid int) {
	f.t.Helper()
	p, err := os.FindProcess(pid) // and no other one that has its pid later
	if err != nil {
		return
	}
	f.mu.Lock()
	delete(f.stands, pid) // it must not go on after its clients have been looked at
	f.mu.Unlock()
	loss, err := f.Freeze(pid)
	if err != nil {
		if _, serr := os.Stat(fmt.Sprintf("/proc/%d", pid)); serr == nil && !strings.Contains(err.Error(), "has ended") {
			f.t.Error(err)
		}
		return // it was quicker
	}
	f.lost = append(f.lost, loss.Excuse)
	if e.deed == kill {
		_ = p.Signal(syscall.SIGKILL)
		return
	}
	if strings.HasSuffix(e.victim, "parent") && e.stands > time.Second {
		f.lost = append(f.lost, load.Result.ExceptIdle) // as docs/faults.md says of a parent that hangs
	}
	f.mu.Lock()
	f.stands[pid] = p
	f.mu.Unlock()
	f.wg.Go(func() {
		<-time.After(e.stands)
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.stands[pid] == p {
			delete(f.stands, pid)
			_ = p.Signal(syscall.SIGCONT)
		}
	})
}
