package handover

import (
	"encoding/json"
	"log/slog"
	"net"
	"os"
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/upgrader"
)

// estate is the state of workers on its way, in which this package looks at nothing.
const estate = `{"v":2,"groups":{"web":{"count":3,"configured":1,"restarts":5,"failures":2}},"workers":{"web/1/2/4/4711":{"ready":"2024-05-06T07:08:09Z"}}}`

var rolling = control.Outcome{Time: time.Date(2024, 5, 6, 8, 0, 0, 0, time.UTC), Generation: 5, Result: control.Rolling}

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
	u.rolling = []*control.Watcher{watcher()}
	u.current = []ask{{}, {watcher: watcher()}}
	u.waiting = []ask{{watcher: watcher()}, {}}
	var names []string
	for _, f := range u.give() {
		names = append(names, f.Name)
		f.File.Close()
	}
	ws := newWishes(nil)
	ws.running[&wish{Wish: control.Wish{Verb: control.Drain, Worker: "4711"}, watcher: watcher(), found: true}] = true
	files, given := ws.give()
	for _, f := range files {
		names = append(names, f.Name)
		f.File.Close()
	}
	golden.Check(t, "parent.jsonl", [][]byte{
		golden.JSON(t, parentState{Version: 1, Set: json.RawMessage(estate), Upgrade: &rolling, Wishes: given}),
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
		p := &parent{log: slog.New(slog.DiscardHandler)}
		p.upgrades = newUpgrades(p)
		l := upgrader.Legacy{State: state}
		var others []net.Conn
		for _, name := range golden.Read[[]string](t, lines[1]) {
			f, other := watching(t)
			l.Files, others = append(l.Files, upgrader.NamedFile{Name: name, File: f}), append(others, other)
		}
		worker, _ := watching(t)
		l.Files = append(l.Files, upgrader.NamedFile{Name: "channel:web/1/2/4/4711", File: worker})
		e, wishes := p.sort(l)
		want, outcome := json.RawMessage(estate), &rolling
		rolls, wished := 2, []givenWish{{control.Wish{Verb: control.Drain, Worker: "4711"}, true}}
		if version == "first" { // to which one who waits for a wish watches the upgrade
			want, outcome, rolls, wished = former, nil, 3, nil
		}
		for f, w := range wishes {
			watcher, err := control.ResumeWatcher(f)
			if err != nil || !slices.Contains(wished, w) {
				t.Fatalf("%s: %+v, %v", version, w, err)
			}
			p.upgrades.rolling = append(p.upgrades.rolling, watcher)
			rolls++
		}
		if string(e.State) != string(want) || !reflect.DeepEqual(p.upgrades.last, outcome) {
			t.Errorf("%s: %s\nand %+v", version, e.State, p.upgrades.last)
		}
		if len(e.Files) != 1 || e.Files["channel:web/1/2/4/4711"] == nil {
			t.Errorf("%s: %v", version, e.Files)
		}
		if len(p.upgrades.rolling) != rolls || len(wishes) != len(wished) || len(p.upgrades.waiting) != 1 {
			t.Fatalf("%s: %d watch this upgrade, %d the next", version, len(p.upgrades.rolling), len(p.upgrades.waiting))
		}
		e.Close()
		for _, w := range slices.Concat(p.upgrades.rolling, []*control.Watcher{p.upgrades.waiting[0].watcher}) {
			w.End(control.Event{Result: control.Done})
		}
		for _, c := range others {
			if ev := (control.Event{}); json.NewDecoder(c).Decode(&ev) != nil || ev.Result != control.Done {
				t.Errorf("%s: a watcher is told %+v", version, ev)
			}
		}
	}
}

// TestReadByFormer: to the first version all of the state was the workers'. It finds
// nothing in today's, and no workers are none that it has to know about: it asks them.
func TestReadByFormer(t *testing.T) {
	st := golden.Read[formerState](t, golden.Lines(t, "parent.jsonl")[0])
	if len(st.Groups) != 0 || len(st.Workers) != 0 || len(st.Residue) != 0 || st.Version != 1 {
		t.Errorf("%+v", st)
	}
}
