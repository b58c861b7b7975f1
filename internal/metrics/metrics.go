// Package metrics counts what happens to a service, and says it to Prometheus.
//
// A book adds up; it is pure, and travels from parent to parent. Metrics is the shell
// around it, and the only code of the module that knows Prometheus' library:
// docs/metrics.md lists what there is to scrape.
package metrics

import (
	"context"
	"encoding/json"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// Set is what is asked at each scrape: a workerset.Set.
type Set interface {
	Refresh(context.Context)
	Status(context.Context) (workerset.Status, error)
}

// Metrics are those of one parent. Its methods may be called from any goroutine; only those
// that get a context wait, for the set.
type Metrics struct {
	looking sync.Mutex // held from when the set is asked until its answer is in the book
	mu      sync.Mutex // never held while the set is waited for
	book    book
}

// New knows of nothing that has happened.
func New() *Metrics { return &Metrics{book: newBook()} }

// Observe takes in a change of a worker's state: it is a workerset.Config.Observe.
func (m *Metrics) Observe(c workerset.Change) { m.write(func(b *book) { b.observe(c) }) }

// UpgradeBegins is to be called before an upgrade, which ends with UpgradeFails, or with
// UpgradeSettles in the parent that it leads to. One that undoes the one before it, which
// has failed its probation, ends with that.
func (m *Metrics) UpgradeBegins(undo bool) { m.write(func(b *book) { b.begin(time.Now(), undo) }) }

// UpgradeFails: nothing has changed.
func (m *Metrics) UpgradeFails() { m.write((*book).fail) }

// UpgradeServes: the workers of the upgrade that has led to this parent, if one has, have
// replaced all others.
func (m *Metrics) UpgradeServes() { m.write(func(b *book) { b.serve(time.Now()) }) }

// UpgradeSettles is what has become of it. Only the first call counts.
func (m *Metrics) UpgradeSettles(result control.Result) { m.write(func(b *book) { b.settle(result) }) }

// Give is what the next parent has to Take. Call it when the set has been given away: what
// has been said to a scrape is in it. This process may go on counting if it has to.
func (m *Metrics) Give(ctx context.Context, set Set) (state json.RawMessage, err error) {
	// What the set can't say is missing, which is no reason to lose the rest.
	_, _ = m.look(ctx, set)
	m.write(func(b *book) { state, err = b.give(clock.Now()) })
	return state, err
}

// Take adds what the parent before has given. Call it before its workers are taken over,
// and Adopted after that. With an error nothing has changed: the counters begin anew.
func (m *Metrics) Take(state json.RawMessage) (err error) {
	m.write(func(b *book) { err = b.take(state) })
	return err
}

// Adopted says that all workers that could be taken over are.
func (m *Metrics) Adopted() { m.write((*book).adopted) }

func (m *Metrics) write(fn func(*book)) {
	m.mu.Lock()
	defer m.mu.Unlock()
	fn(&m.book)
}

// look takes in what the set says. One answer after the other, so that none is older than
// what is known.
func (m *Metrics) look(ctx context.Context, set Set) (workerset.Status, error) {
	m.looking.Lock()
	defer m.looking.Unlock()
	st, err := set.Status(ctx)
	if err == nil {
		m.write(func(b *book) { b.status(st) })
	}
	return st, err
}

// About is what does not change in the life of a parent.
type About struct {
	Service string
	Since   time.Time // when it began to decide
}

// ServeHTTP answers a scrape, in OpenMetrics or in Prometheus' text format as is asked for.
func (m *Metrics) ServeHTTP(w http.ResponseWriter, r *http.Request, about About, set Set) {
	set.Refresh(r.Context())
	st, err := m.look(r.Context(), set)
	if err != nil { // whoever replaces this process has the answer
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	var list collector
	m.write(func(b *book) { list = collect(b, st, about) })
	reg := prometheus.NewRegistry()
	reg.MustRegister(list)
	promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, DisableCompression: true}).ServeHTTP(w, r)
}
