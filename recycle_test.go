package handover

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/worker"
	"github.com/handover-go/handover/workerset"
)

// TestRecycleDefaults: what is said once is for all groups but agents, and a group can say
// something else, or nothing.
func TestRecycleDefaults(t *testing.T) {
	t.Parallel()
	day, hour := workerset.Recycle{MaxAge: 24 * time.Hour}, workerset.Recycle{MaxAge: time.Hour}
	app := func(context.Context, *worker.Worker) error { return nil }
	c := Config{Recycle: day, Groups: []Group{
		{Name: "web"}, {Name: "own", Recycle: hour}, {Name: "none", Recycle: workerset.Recycle{Jitter: -1}},
		{Name: "agent", Agent: true, App: app}, {Name: "helper", Agent: true, App: app, Recycle: hour},
	}}
	want := map[string]workerset.Recycle{"web": day, "own": hour, "none": {Jitter: -1}, "agent": {}, "helper": hour}
	for _, g := range c.groups(1) {
		if wg, err := g.workers(); err != nil || wg.Recycle != want[g.Name] {
			t.Errorf("%s: %+v, %v", g.Name, wg.Recycle, err)
		}
	}
	c.Groups = nil
	for _, g := range c.groups(1) {
		if g.Recycle != day {
			t.Errorf("%+v", g.Recycle)
		}
	}
}

// TestRecycleRefused: what can't be is known before anything is started.
func TestRecycleRefused(t *testing.T) {
	t.Parallel()
	some := workerset.Recycle{MaxRequests: 100}
	listen := []string{"http=tcp://127.0.0.1:0"}
	for _, c := range []struct {
		cfg Config
		why string
	}{
		{Config{Listen: listen, Recycle: some}, ""},
		{Config{Listen: listen, Recycle: workerset.Recycle{MaxAge: -1}}, "max age -1ns"},
		{Config{Listen: listen, Recycle: some, Command: []string{"true"}}, "max requests 100: a program does not say"},
		{Config{Listen: listen, Recycle: some, Groups: []Group{{Name: "web"}}}, ""},
		{Config{Listen: listen, Recycle: some, Groups: []Group{{Name: "web"}, {Name: "node", Command: []string{"true"}}}}, `group "node": max requests 100: a program`},
		{Config{Listen: listen, Groups: []Group{{Name: "web", Recycle: workerset.Recycle{Jitter: 2}}}}, `group "web": jitter 2`},
	} {
		err := c.cfg.Validate()
		if (err == nil) != (c.why == "") || err != nil && (!errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), c.why)) {
			t.Errorf("%+v: %v", c.cfg, err)
		}
	}
}
