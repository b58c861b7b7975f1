//go:build linux

package workerset_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"syscall"
	"testing"

	"github.com/handover-go/handover/workerset"
)

// TestSetup: changed settings are for workers that are started from then on.
func TestSetup(t *testing.T) {
	t.Parallel()
	say := foreigners(t, "say", "print says one;catch;notify READY=1;term;exit 0")
	say.DrainSignal, say.Sockets = syscall.SIGUSR2, []string{}
	h := newSet(t, add(say)).serve()
	h.printed("says one\n")
	changed := say
	changed.Env = []string{foreign("print says two;catch;notify READY=1;term;exit 0")}
	changed.Count, changed.DrainSignal, changed.After = 7, syscall.SIGTERM, []string{"nobody"}
	if err := h.set.Setup(h.ctx(), changed); err != nil {
		t.Fatal(err)
	}
	if g := h.group("say"); g.Count != 1 || len(g.Workers) != 1 || g.Workers[0].ID != 1 {
		t.Errorf("%+v", g)
	}
	if err := h.set.Restart(h.ctx()); err != nil {
		t.Fatal(err)
	}
	h.printed("says two\n")
	h.printed("got user defined signal 2\n") // by the signal that it was started to expect
	bad := changed
	bad.Sockets = []string{"nothing"}
	if err := h.set.Setup(h.ctx(), bad); !errors.Is(err, workerset.ErrConfig) || !strings.Contains(err.Error(), `group "say": there is no socket "nothing"`) {
		t.Error(err)
	}
	if err := h.set.Setup(h.ctx(), workerset.Group{Name: "nobody"}); !errors.Is(err, workerset.ErrNoGroup) {
		t.Error(err)
	}
	h.stop()
	if err := h.set.Setup(context.Background(), changed); !errors.Is(err, workerset.ErrEnded) {
		t.Error(err)
	}
}

// TestGroupsOverUpgrade: the next generation has other groups, in another order: those
// that are gone are drained as they wished, and those that stay are replaced.
func TestGroupsOverUpgrade(t *testing.T) {
	t.Parallel()
	gone := foreigners(t, "gone", "catch;notify READY=1;term;exit 0")
	gone.DrainSignal = syscall.SIGUSR2
	stays := shell("stays", `echo old "$@"`, "arguments")
	h := newSet(t, func(c *workerset.Config) {
		c.Groups = append(c.Groups, gone, stays)
		c.Groups[0].After = []string{"gone"}
	}).serve()
	added := shell("added", "")
	stays = shell("stays", `echo new "$@"`, "ones")
	stays.Count = 2
	added.After = []string{"stays"}
	next := newSetOn(t, h.sock, h.addr, func(c *workerset.Config) {
		c.Generation, c.Trial = 2, true
		c.Groups = []workerset.Group{added, c.Groups[0], stays}
	}).serve()
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if err := next.set.Drained(next.ctx()); err != nil {
		t.Fatal(err)
	}
	next.printed("got user defined signal 2\n")
	next.printed("new ones\n")
	st, err := next.set.Status(next.ctx())
	got := ""
	for _, g := range st.Groups {
		got += fmt.Sprintf("%s=%d/%d ", g.Name, len(g.Workers), g.Count)
	}
	if err != nil || got != "added=1/1 web=1/1 stays=2/2 " {
		t.Errorf("%s, %v", got, err)
	}
	gone2 := next.news.wait(t, func(ev workerset.Event) bool { return ev.Group == "gone" && ev.Kind == workerset.EventExit })
	if !gone2.Voluntary || gone2.Generation != 1 {
		t.Errorf("%+v", gone2)
	}
}

// TestScaledBeyond: what was scaled at run time is not kept where the next generation
// has not the sockets for it.
func TestScaledBeyond(t *testing.T) {
	t.Parallel()
	sockets := map[string]int{}
	for i := 1; i <= 3; i++ {
		sockets["own-"+itoa(i)], _ = heldSocket(t)
	}
	own := func(n int) func(*workerset.Config) {
		return func(c *workerset.Config) {
			g := shell("own", "")
			g.Sockets = []string{"own-{slot}"}
			for i := 1; i <= n; i++ {
				c.Sockets["own-"+itoa(i)] = sockets["own-"+itoa(i)]
			}
			c.Groups[0].Sockets = []string{"http"}
			c.Groups = append(c.Groups, g)
		}
	}
	h := newSet(t, own(3)).serve()
	if err := h.set.Scale(h.ctx(), "own", 3); err != nil {
		t.Fatal(err)
	}
	next := h.trial(own(2))
	h.handOver(next)
	if err := next.set.Ready(next.ctx()); err != nil {
		t.Fatal(err)
	}
	if g := next.group("own"); g.Count != 1 || len(g.Workers) == 0 {
		t.Errorf("%+v", g)
	}
}
