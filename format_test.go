package handover

import (
	"context"
	"encoding/json"
	"log/slog"
	"maps"
	"net"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/metrics"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/upgrader"
	"github.com/handover-go/handover/workerset"
)

// estate is the state of workers on its way, in which this package looks at nothing.
const estate = `{"v":2,"groups":{"web":{"count":3,"configured":1,"restarts":5,"failures":2}},"workers":{"web/1/2/4/4711":{"ready":"2024-05-06T07:08:09Z"}}}`

// counted is what internal/metrics hands on, in which this package looks at nothing either.
const counted = `{"v":1,"upgrades":{"done":7}}`

var rolling = control.Outcome{Time: time.Date(2024, 5, 6, 8, 0, 0, 0, time.UTC), Generation: 5, Result: control.Rolling}

// before is a generation that can be gone back to.
var before = recipe{
	Generation: 3, Source: []byte("workers = 2"),
	Programs: map[string]location{"web": {Path: "/srv/42/server", Name: "/srv/current/server", Dir: "/srv/42"}},
}

// watching is a watcher's connection, and its other end.
func watching(t *testing.T) (f *os.File, other net.Conn) {
	t.Helper()
	f, end, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	if other, err = net.FileConn(end); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Close() })
	return f, other
}

// TestFormat: what parents tell one another, who may be of different versions.
func TestFormat(t *testing.T) {
	u := &upgrades{}
	watcher := func() *control.Watcher {
		f, _ := watching(t)
		w, err := control.ResumeWatcher(f)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(w.Drop)
		return w
	}
	u.watches = []watch{{watcher: watcher(), wait: control.WaitServe}}
	u.current = []ask{{}, {watcher: watcher(), wait: control.WaitProbation}}
	u.waiting = []ask{{watcher: watcher(), wait: control.WaitServe}, {watcher: watcher(), back: &back{}}, {}}
	var names []string
	give := func() {
		for _, f := range u.give() {
			names = append(names, f.Name)
			f.File.Close()
		}
	}
	give()
	u.current, u.waiting = []ask{{back: &back{}}}, nil
	give()
	ws := newWishes(nil)
	ws.running[&wish{Wish: control.Wish{Verb: control.Drain, Worker: "4711"}, watcher: watcher(), found: true}] = true
	files, given := ws.give()
	for _, f := range files {
		names = append(names, f.Name)
		f.File.Close()
	}
	golden.Check(t, "parent.jsonl", [][]byte{
		golden.JSON(t, parentState{Version: 1, Set: json.RawMessage(estate), Upgrade: &rolling, Previous: &before, Wishes: given, Metrics: json.RawMessage(counted)}),
		golden.JSON(t, names),
	})
}

// TestReadFormats: a parent takes in what an older, a present and a later one leaves.
func TestReadFormats(t *testing.T) {
	lines := golden.Lines(t, "parent.jsonl")
	former := golden.Lines(t, "parent.v1.json")[0]
	for version, state := range map[string][]byte{
		"first": former, "today": lines[0], "later": golden.Later(lines[0], "set", "upgrade", "result", "verb", "found"),
	} {
		p := &parent{log: slog.New(slog.DiscardHandler), metrics: metrics.New()}
		p.upgrades = newUpgrades(p)
		exe, other := watching(t)
		other.Close()
		l := upgrader.Legacy{State: state, Files: []upgrader.NamedFile{{Name: filePrevious, File: exe}}}
		var others []net.Conn
		for _, name := range golden.Read[[]string](t, lines[1]) {
			f, other := watching(t)
			l.Files, others = append(l.Files, upgrader.NamedFile{Name: name, File: f}), append(others, other)
		}
		worker, _ := watching(t)
		l.Files = append(l.Files, upgrader.NamedFile{Name: "channel:web/1/2/4/4711", File: worker})
		e, wishes := p.sort(l)
		want, outcome := json.RawMessage(estate), &rolling
		watchers, wished := 3, []givenWish{{control.Wish{Verb: control.Drain, Worker: "4711"}, true}}
		if version == "first" { // to which one who waits for a wish watches the upgrade
			want, outcome, watchers, wished = former, nil, 4, nil
		}
		if got := slices.Collect(maps.Values(wishes)); !slices.Equal(got, wished) {
			t.Errorf("%s: wishes %+v", version, got)
		}
		if string(e.State) != string(want) || !reflect.DeepEqual(p.upgrades.last, outcome) {
			t.Errorf("%s: %s\nand %+v", version, e.State, p.upgrades.last)
		}
		if len(e.Files) != 1 || e.Files["channel:web/1/2/4/4711"] == nil {
			t.Errorf("%s: %v", version, e.Files)
		}
		counts, err := p.metrics.Give(t.Context(), noSet{})
		if err != nil || strings.Contains(string(counts), `"done":7`) != (version != "first") {
			t.Errorf("%s: %s, %v", version, counts, err)
		}
		watches := p.upgrades.watches
		if len(watches) != watchers || len(p.upgrades.waiting) != 1 {
			t.Fatalf("%s: %d watch this upgrade, %d the next", version, len(watches), len(p.upgrades.waiting))
		}
		if watches[0].wait != control.WaitServe || watches[1].wait != control.WaitProbation || watches[1].undone || !watches[2].undone {
			t.Errorf("%s: %+v", version, watches)
		}
		if prev := p.upgrades.previous; version == "first" {
			if prev != nil || exe.Close() == nil {
				t.Errorf("%s: %+v can be gone back to", version, prev)
			}
		} else if prev == nil || prev.exe != exe || !reflect.DeepEqual(prev.recipe, before) {
			t.Errorf("%s: %+v can be gone back to", version, prev)
		}
		p.upgrades.previous.close()
		e.Close()
		for f := range wishes {
			w, err := control.ResumeWatcher(f)
			if err != nil {
				t.Fatal(err)
			}
			watches = append(watches, watch{watcher: w})
		}
		for _, w := range append(watches, watch{watcher: p.upgrades.waiting[0].watcher}) {
			w.watcher.End(control.Event{Result: control.Done})
		}
		for _, c := range others {
			if ev := (control.Event{}); json.NewDecoder(c).Decode(&ev) != nil || ev.Result != control.Done {
				t.Errorf("%s: a watcher is told %+v", version, ev)
			}
		}
	}
}

// noSet has ended.
type noSet struct{}

func (noSet) Refresh(context.Context) {}
func (noSet) Status(context.Context) (workerset.Status, error) {
	return workerset.Status{}, workerset.ErrEnded
}

// TestReadByFormer: to the first version all of the state was the workers'. It finds
// nothing in today's, and no workers are none that it has to know about: it asks them.
func TestReadByFormer(t *testing.T) {
	st := golden.Read[formerState](t, golden.Lines(t, "parent.jsonl")[0])
	if len(st.Groups) != 0 || len(st.Workers) != 0 || len(st.Residue) != 0 || st.Version != 1 {
		t.Errorf("%+v", st)
	}
}
