package metrics

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"pgregory.net/rapid"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/workerset"
)

func at(sec int) time.Time { return time.Date(2024, 5, 6, 7, 0, sec, 0, time.UTC) }

// counters are all that may never go backwards, by name and labels: those of histograms,
// too.
func counters(t rapid.TB, b *book, st workerset.Status) map[string]float64 {
	t.Helper()
	reg := prometheus.NewPedanticRegistry()
	reg.MustRegister(collect(b, st, About{Service: "shop", Since: at(0)}))
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetName()+"="+l.GetValue())
			}
			key := strings.TrimPrefix(f.GetName(), "handover_") + "{" + strings.Join(labels, ",") + "}"
			switch f.GetType() {
			case dto.MetricType_COUNTER:
				all[key] = m.GetCounter().GetValue()
			case dto.MetricType_HISTOGRAM:
				h := m.GetHistogram()
				all[key+"count"], all[key+"sum"] = float64(h.GetSampleCount()), h.GetSampleSum()
				for _, bucket := range h.GetBucket() {
					all[fmt.Sprintf("%sle=%v", key, bucket.GetUpperBound())] = float64(bucket.GetCumulativeCount())
				}
			}
		}
	}
	return all
}

// life is a worker as the model knows it.
type life struct {
	workerset.Worker
	said   counts // the most that it has ever said
	drains time.Time
}

// model is a service with its parent's book, beside what it has to say.
type model struct {
	book     book
	set      workerset.Status // what the set would say
	living   []*life
	ended    counts // said by those that are gone
	restarts uint64
	failures uint64
	starts   uint64
	drains   uint64
	drained  time.Duration // all of them together
	upgrades map[string]uint64
	rolls    uint64
	now      int
	ids      int
	last     map[string]float64
}

func newModel() *model {
	return &model{book: newBook(), upgrades: map[string]uint64{}, set: workerset.Status{Generation: 1, Groups: []workerset.GroupStatus{{Name: "web"}, {Name: "admin"}}}}
}

func (m *model) tick() time.Time { m.now++; return at(m.now) }

// status is the set's answer.
func (m *model) status() workerset.Status {
	st := m.set
	st.Groups = slices.Clone(st.Groups)
	for i := range st.Groups {
		st.Groups[i].Workers = nil
		for _, w := range m.living {
			if w.Group == st.Groups[i].Name {
				st.Groups[i].Workers = append(st.Groups[i].Workers, w.Worker)
			}
		}
	}
	return st
}

// scrape is what a scrape does.
func (m *model) scrape() {
	m.book.status(m.status())
	for _, w := range m.living {
		w.said = w.said.max(countsOf(w.Worker))
	}
}

// become changes a worker's state.
func (m *model) become(w *life, state string, restart bool) {
	from := w.State
	w.State, w.Since = state, m.tick()
	if state == draining {
		w.drains = w.Since
	}
	w.said = w.said.max(countsOf(w.Worker))
	m.book.observe(workerset.Change{Worker: w.Worker, From: from, Restart: restart})
}

func (m *model) spawn(group string) {
	m.ids++
	w := &life{Worker: workerset.Worker{Group: group, Slot: 1, ID: m.ids, Generation: m.set.Generation, State: "spawning"}}
	m.living = append(m.living, w)
	w.Started = m.tick()
	m.become(w, starting, false)
}

// gone is the end of a worker that the book does not know of yet.
func (m *model) gone(w *life) {
	m.living = slices.DeleteFunc(m.living, func(l *life) bool { return l == w })
	m.ended = m.ended.plus(w.said)
}

// upgrade hands the book on. lost says of each worker whether it dies meanwhile.
func (m *model) upgrade(undo bool, lost func() bool) {
	m.book.begin(m.tick(), undo)
	m.scrape() // as Give does
	state, err := m.book.give(clock.Reading{})
	if err != nil {
		panic(err)
	}
	old := m.book
	m.book = newBook()
	m.set.Generation++
	m.spawn("web")
	m.become(m.living[len(m.living)-1], standby, false) // on trial
	m.starts++
	if !old.Rolling.IsZero() && !undo {
		m.upgrades[superseded]++
	}
	if err := m.book.take(state); err != nil {
		panic(err)
	}
	for _, w := range slices.Clone(m.living) {
		switch {
		case w.Generation == m.set.Generation:
		case lost():
			m.gone(w)
		default: // whose parent has not asked it yet
			adopted := w.Worker
			adopted.State, adopted.Since = serving, m.tick()
			adopted.Served, adopted.MovedIn, adopted.MovedOut, adopted.Cut = 0, 0, 0, 0
			m.book.observe(workerset.Change{Worker: adopted, From: "spawning"})
			if w.State == draining { // since it was heard of
				w.Since = m.tick()
				m.book.observe(workerset.Change{Worker: w.Worker, From: serving})
			}
		}
	}
	m.book.adopted()
}

const serving = "serving"

// check compares the counters with the model, and with what they were.
func (m *model) check(t *rapid.T) {
	all := counters(t, &m.book, m.set)
	for key, was := range m.last {
		if now, ok := all[key]; !ok || now < was-1e-9 {
			t.Fatalf("%s was %v and is %v (%v)", key, was, now, ok)
		}
	}
	m.last = all
	sum := func(prefix string) (n float64) {
		for key, v := range all {
			if strings.HasPrefix(key, prefix) {
				n += v
			}
		}
		return n
	}
	count := func(name string) float64 {
		return sum(name+"{group=web}count") + sum(name+"{group=admin}count")
	}
	total := m.ended
	for _, w := range m.living {
		total = total.plus(w.said)
	}
	want := map[string]float64{
		"connections_accepted_total": float64(total.Accepted), "connections_moved_in_total": float64(total.MovedIn),
		"connections_moved_out_total": float64(total.MovedOut), "connections_cut_total": float64(total.Cut),
		"worker_restarts_total": float64(m.restarts), "worker_failures_total": float64(m.failures),
	}
	drained := all["worker_drain_duration_seconds{group=web}sum"] + all["worker_drain_duration_seconds{group=admin}sum"]
	if drained != m.drained.Seconds() {
		t.Fatalf("drained for %v s, not %v", drained, m.drained)
	}
	if len(m.book.Workers) != len(m.living) {
		t.Fatalf("%d workers in the book, %d live", len(m.book.Workers), len(m.living))
	}
	got := map[string]float64{"starts": count("worker_start_duration_seconds"), "drains": count("worker_drain_duration_seconds"), "rolls": all["upgrade_duration_seconds{}count"]}
	for name := range want {
		got[name] = sum(name)
	}
	want["starts"], want["drains"], want["rolls"] = float64(m.starts), float64(m.drains), float64(m.rolls)
	for _, result := range results {
		name := "upgrades_total{result=" + result + "}"
		want[name], got[name] = float64(m.upgrades[result]), all[name]
	}
	if !maps.Equal(got, want) {
		t.Fatalf("\n got %v\nwant %v", got, want)
	}
}

// TestBook: whatever happens to workers and parents, no counter ever goes backwards, and
// each is what all workers that there have been add up to.
func TestBook(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := newModel()
		some := func(t *rapid.T, states ...string) *life {
			var list []*life
			for _, w := range m.living {
				if slices.Contains(states, w.State) {
					list = append(list, w)
				}
			}
			if len(list) == 0 {
				t.Skip("nobody")
			}
			return rapid.SampledFrom(list).Draw(t, "worker")
		}
		group := rapid.SampledFrom([]string{"web", "admin"})
		numbers := func(t *rapid.T, w *life, g *rapid.Generator[int]) {
			w.Served, w.MovedIn, w.MovedOut, w.Cut = g.Draw(t, "served"), g.Draw(t, "in"), g.Draw(t, "out"), g.Draw(t, "cut")
		}
		all := []string{starting, standby, serving, draining}
		t.Repeat(map[string]func(*rapid.T){
			"spawn": func(t *rapid.T) { m.spawn(group.Draw(t, "group")) },
			"ready": func(t *rapid.T) { m.become(some(t, starting), standby, false); m.starts++ },
			"serve": func(t *rapid.T) { m.become(some(t, standby), serving, false) },
			"drain": func(t *rapid.T) { m.become(some(t, starting, standby, serving), draining, false) },
			"die": func(t *rapid.T) {
				w := some(t, all...)
				drained, restart := w.State == draining, rapid.Bool().Draw(t, "restart")
				w.Cause = rapid.SampledFrom([]string{"", "retire", "crash", "a cause of its own"}).Draw(t, "cause")
				m.scrape()
				late := m.status()
				m.become(w, exited, restart)
				m.gone(w)
				m.book.status(late) // was asked for before
				if restart {
					m.restarts++
				}
				if drained {
					m.drains++
					m.drained += w.Since.Sub(w.drains)
				}
			},
			"work": func(t *rapid.T) {
				w, n := some(t, all...), rapid.IntRange(0, 100)
				w.Served, w.MovedIn = w.Served+n.Draw(t, "served"), w.MovedIn+n.Draw(t, "in")
				w.MovedOut, w.Cut = w.MovedOut+n.Draw(t, "out"), w.Cut+n.Draw(t, "cut")
			},
			"lie":    func(t *rapid.T) { numbers(t, some(t, all...), rapid.Int()) },
			"scrape": func(t *rapid.T) { m.scrape() },
			"fail": func(t *rapid.T) {
				m.set.Groups[rapid.IntRange(0, 1).Draw(t, "group")].Failures++
				m.failures++
				m.scrape()
			},
			"the set forgets": func(t *rapid.T) { m.set.Groups[0].Failures = 0; m.scrape() },
			"upgrade": func(t *rapid.T) {
				undo := !m.book.Rolling.IsZero() && rapid.Bool().Draw(t, "undo")
				m.upgrade(undo, func() bool { return rapid.Bool().Draw(t, "lost") })
				if rapid.Bool().Draw(t, "serves") {
					m.book.serve(m.tick())
					m.book.serve(m.tick()) // does not count
					if !undo {
						m.rolls++
					}
				}
				if rapid.Bool().Draw(t, "settles") {
					result := rapid.SampledFrom([]control.Result{control.Done, control.Stopped, control.RolledBack}).Draw(t, "result")
					m.book.settle(result)
					m.book.settle(result) // does not count
					m.upgrades[string(result)]++
				}
			},
			"failed upgrade": func(t *rapid.T) {
				m.book.begin(m.tick(), rapid.Bool().Draw(t, "undo"))
				if rapid.Bool().Draw(t, "after the commit") {
					m.scrape()
					state, err := m.book.give(clock.Reading{})
					other := newBook()
					if err != nil || other.take(state) != nil {
						t.Fatal(err)
					}
					other.adopted()
					other.serve(m.tick())
					other.settle(control.Done)
				}
				m.book.fail()
				m.upgrades["failed"]++
			},
			"first generation": func(t *rapid.T) { // settles, too, and is no upgrade
				if m.book.Rolling.IsZero() {
					m.book.serve(m.tick())
					m.book.settle(control.Done)
				}
			},
			"": m.check,
		})
	})
}

// TestTakeNonsense: what can't be understood changes nothing, and what makes no sense is
// left out.
func TestTakeNonsense(t *testing.T) {
	b := newBook()
	b.observe(workerset.Change{Worker: workerset.Worker{Group: "web", Slot: 1, ID: 1, Generation: 1, State: serving, Served: 3}, From: standby})
	before := counters(t, &b, workerset.Status{})
	for _, state := range []string{"", "x", "[]", `{"groups":3}`, `{"groups":{"web":{"failures":-1}}}`, `{"workers":{"x":[]}}`, `{"upgrades":{"done":"x"}}`} {
		if err := b.take([]byte(state)); err == nil {
			t.Errorf("%q was taken", state)
		}
		if got := counters(t, &b, workerset.Status{}); !maps.Equal(got, before) {
			t.Errorf("%q: %v", state, got)
		}
	}
	for _, state := range []string{
		"null", "{}", `{"groups":null,"workers":null,"upgrades":null,"upgradeSeconds":null}`, `{"groups":{"web":null}}`,
		`{"groups":{"web":{"startSeconds":{"bounds":[1,2],"counts":[1]}}}}`, `{"groups":{"web":{"startSeconds":{"bounds":[2,1],"counts":[1,1,1]}}}}`,
		`{"groups":{"web":{"startSeconds":{"bounds":[1],"counts":[1,1],"sum":-1}}}}`, `{"groups":{"web":{"startSeconds":{"counts":[]}}}}`,
		`{"later":[1],"groups":{"web":{"later":{}}}}`,
	} {
		if err := b.take([]byte(state)); err != nil {
			t.Errorf("%s: %v", state, err)
		}
		b.adopted()
		if got := counters(t, &b, workerset.Status{}); !maps.Equal(got, before) {
			t.Errorf("%s: %v", state, got)
		}
	}
}

// TestOtherBounds: a parent of another version may have had other buckets.
func TestOtherBounds(t *testing.T) {
	h := newHistogram([]float64{1, 10})
	h.add(histogram{Bounds: []float64{0.5, 1, 5, 20}, Counts: []uint64{1, 2, 4, 8, 16}, Sum: 100})
	if want := []uint64{3, 4, 24}; !slices.Equal(h.Counts, want) || h.Sum != 100 {
		t.Errorf("%v, %v, not %v", h.Counts, h.Sum, want)
	}
	h.add(histogram{Bounds: []float64{1}, Counts: []uint64{1, 1}, Sum: math.Inf(1)})
	h.add(histogram{Bounds: []float64{1}, Counts: []uint64{1, 1}, Sum: math.NaN()})
	h.observe(time.Second)
	h.observe(-time.Minute) // the clock was set back
	h.observe(time.Hour)
	if want := []uint64{5, 4, 25}; !slices.Equal(h.Counts, want) || h.Sum != 3701 {
		t.Errorf("%v, %v, not %v", h.Counts, h.Sum, want)
	}
	buckets, count := h.cumulative()
	if want := map[float64]uint64{1: 5, 10: 9}; !maps.Equal(buckets, want) || count != 34 {
		t.Errorf("%v, %d", buckets, count)
	}
}

// TestCauses: a series for each cause from the beginning, and one for all that workers call
// by names of their own.
func TestCauses(t *testing.T) {
	b := newBook()
	for i := range 1000 {
		b.observe(workerset.Change{Worker: workerset.Worker{Group: "web", ID: i, State: exited, Cause: fmt.Sprint("mine ", i)}, From: serving, Restart: true})
	}
	n := 0
	for key, v := range counters(t, &b, workerset.Status{}) {
		cause, ok := strings.CutPrefix(key, "worker_restarts_total{cause=")
		if !ok {
			continue
		}
		n++
		if want := 0.0; strings.HasPrefix(cause, "other,") {
			want = 1000
			if v != want {
				t.Errorf("%s: %v", key, v)
			}
		} else if v != want {
			t.Errorf("%s: %v", key, v)
		}
	}
	if n != len(wire.Causes)+1 {
		t.Errorf("%d series", n)
	}
}

// TestMost: what one worker says can't make a total overflow.
func TestMost(t *testing.T) {
	b := newBook()
	for i := range 1000 {
		b.observe(workerset.Change{Worker: workerset.Worker{Group: "web", ID: i, State: exited, Served: math.MaxInt, Cut: math.MinInt}, From: serving})
	}
	if got, want := b.connections("web"), (counts{Accepted: 1000 << 44}); got != want {
		t.Errorf("%v, not %v", got, want)
	}
}
