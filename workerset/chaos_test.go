//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/workerset"
)

// TestChaos calls everything at the same time as workers fail, and die: nobody
// waits for ever, and it ends with what is wanted.
func TestChaos(t *testing.T) {
	t.Parallel()
	h := newSet(t, func(c *workerset.Config) {
		c.Groups[0].Count = 3
		c.Groups[0].Surge = 2
		c.Groups[0].DrainTimeout = 50 * time.Millisecond
	}).serve()
	ctx := h.ctx()
	var wg sync.WaitGroup
	for i, act := range []func(*rand.Rand) error{
		func(r *rand.Rand) error {
			short, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(100))*time.Millisecond)
			defer cancel()
			return h.set.Restart(short)
		},
		func(r *rand.Rand) error {
			short, cancel := context.WithTimeout(ctx, time.Duration(r.IntN(100))*time.Millisecond)
			defer cancel()
			return h.set.Scale(short, "web", 1+r.IntN(5))
		},
		func(*rand.Rand) error {
			e, err := h.set.Yield(ctx)
			if err != nil {
				return err
			}
			_, err = h.set.Status(ctx)
			e.Close()
			h.set.Resume()
			return err
		},
		func(r *rand.Rand) error {
			st, err := h.set.Status(ctx)
			if err != nil {
				return err
			}
			if ws := st.Groups[0].Workers; len(ws) > 0 {
				sigs := []syscall.Signal{syscall.SIGKILL, syscall.SIGTERM, syscall.SIGTERM, syscall.SIGUSR1}
				_ = syscall.Kill(ws[r.IntN(len(ws))].Pid, sigs[r.IntN(len(sigs))])
			}
			return nil
		},
	} {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(i)))
			for range 20 {
				// Who asks while the set is given away is told so.
				err := act(r)
				expected := errors.Is(err, context.DeadlineExceeded) || errors.Is(err, workerset.ErrRollStopped) || errors.Is(err, workerset.ErrGivenAway)
				if err != nil && !expected || ctx.Err() != nil {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	if err := h.set.Scale(ctx, "web", 3); err != nil {
		t.Fatal(err)
	}
	// A kill may have hit what the scaling had waited for.
	for {
		if err := h.set.Restart(ctx); err == nil {
			break
		} else if !errors.Is(err, workerset.ErrRollStopped) {
			t.Fatalf("%v\n%s", err, h.story())
		}
	}
	if err := h.set.Drained(ctx); err != nil {
		t.Fatal(err)
	}
	st := h.status()
	var slots []int
	for _, w := range st.Workers {
		slots = append(slots, w.Slot)
	}
	slices.Sort(slots)
	if !slices.Equal(slots, []int{1, 2, 3}) {
		t.Errorf("%+v", st)
	}
	h.get("/")
	if r := h.stop(); r.Exited != 3 {
		t.Errorf("%+v", r)
	}
}
