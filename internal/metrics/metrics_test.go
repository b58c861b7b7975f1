package metrics

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/common/expfmt"
	names "github.com/prometheus/common/model"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/workerset"
)

// fakeSet has one worker, which has accepted so many connections.
type fakeSet struct {
	mu     sync.Mutex
	served int
	err    error
}

func (f *fakeSet) Refresh(context.Context) {}

// Status says more each time.
func (f *fakeSet) Status(context.Context) (workerset.Status, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.served++
	return workerset.Status{Generation: 3, Groups: []workerset.GroupStatus{{
		Name: "web\xff", Count: 2, Failures: f.served,
		Workers: []workerset.Worker{{Group: "web\xff", Slot: 1, ID: 1, Generation: 3, State: serving, Active: 5, Idle: 2, Served: f.served}},
	}}}, f.err
}

func scrape(m *Metrics, set Set, accept string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(http.MethodGet, "/metrics", nil)
	r.Header.Set("Accept", accept)
	w := httptest.NewRecorder()
	m.ServeHTTP(w, r, About{Service: "shop\xff", Since: at(0)}, set)
	return w
}

// TestFormats: OpenMetrics for whoever asks for it, Prometheus' text format for all others.
func TestFormats(t *testing.T) {
	m, set := New(), &fakeSet{}
	m.Observe(workerset.Change{Worker: workerset.Worker{Group: "web\xff", Slot: 1, ID: 1, Generation: 3, State: serving}, From: standby})
	for accept, want := range map[string]string{
		"": "text/plain; version=0.0.4", "text/html": "text/plain; version=0.0.4",
		"application/openmetrics-text;version=1.0.0,text/plain;q=0.5": "application/openmetrics-text; version=1.0.0",
	} {
		w := scrape(m, set, accept)
		body, open := w.Body.String(), strings.Contains(want, "openmetrics")
		if got := w.Header().Get("Content-Type"); w.Code != http.StatusOK || !strings.HasPrefix(got, want) || strings.HasSuffix(body, "\n# EOF\n") != open {
			t.Errorf("%q: %d, %s, not %s\n%s", accept, w.Code, got, want, body)
		}
		for _, line := range []string{
			`handover_generation 3`, `handover_workers{generation="3",group="web?",state="serving"} 1`, `handover_workers{generation="3",group="web?",state="draining"} 0`,
			`handover_workers_wanted{group="web?"} 2`, `handover_connections_open{group="web?"} 5`, `handover_connections_idle{group="web?"} 2`,
			fmt.Sprintf(`handover_connections_accepted_total{group="web?"} %d`, set.served), fmt.Sprintf(`handover_worker_failures_total{group="web?"} %d`, set.served),
			`handover_worker_restarts_total{cause="crash",group="web?"} 0`, `handover_upgrades_total{result="done"} 0`,
		} {
			if got := strings.ReplaceAll(body, ".0\n", "\n"); !strings.Contains(got, "\n"+line+"\n") {
				t.Errorf("no %s in\n%s", line, body)
			}
		}
		if open {
			continue
		}
		parser := expfmt.NewTextParser(names.UTF8Validation)
		if families, err := parser.TextToMetricFamilies(strings.NewReader(body)); err != nil || len(families) != len(descs) {
			t.Errorf("%d families, not %d, %v", len(families), len(descs), err)
		}
	}
}

// TestScrapes at the same time agree on the order in which the set has spoken.
func TestScrapes(t *testing.T) {
	m, set := New(), &fakeSet{}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for range 50 {
				scrape(m, set, "")
			}
		})
	}
	wg.Wait()
	if got := m.book.Groups["web\xff"].Failures; got != 400 {
		t.Errorf("%d failures, not 400", got)
	}
}

// TestEnded: a set that does not answer any more has been replaced, or ends. What was known
// travels all the same.
func TestEnded(t *testing.T) {
	m, set := New(), &fakeSet{}
	scrape(m, set, "")
	// What the set says at the end is in it.
	if state, err := m.Give(t.Context(), set); err != nil || !strings.Contains(string(state), `"failures":2`) {
		t.Errorf("%s, %v", state, err)
	}
	set.err = errors.New("the set has ended")
	if w := scrape(m, set, ""); w.Code != http.StatusServiceUnavailable || w.Body.String() != "the set has ended\n" {
		t.Errorf("%d: %s", w.Code, w.Body)
	}
	state, err := m.Give(t.Context(), set)
	if err != nil || !strings.Contains(string(state), `"failures":2`) {
		t.Errorf("%s, %v", state, err)
	}
}

// TestDoc: docs/metrics.md lists what there is, in these words.
func TestDoc(t *testing.T) {
	doc, err := os.ReadFile("../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	w := scrape(New(), &fakeSet{}, "")
	n := 0
	for line := range strings.Lines(w.Body.String()) {
		rest, ok := strings.CutPrefix(line, "# HELP ")
		if !ok {
			continue
		}
		n++
		name, help, _ := strings.Cut(strings.TrimSpace(rest), " ")
		if !strings.Contains(string(doc), "| `"+name+"` | ") || !strings.Contains(string(doc), " | "+help+" |\n") {
			t.Errorf("docs/metrics.md does not list %s: %s", name, help)
		}
	}
	if rows := strings.Count(string(doc), "| `handover_"); n != len(descs) || rows != n {
		t.Errorf("%d metrics, %d descriptions, %d rows", n, len(descs), rows)
	}
	for s := lifecycle.Spawning; s < lifecycle.Exited; s++ {
		if !strings.Contains(string(doc), "`"+s.String()+"`") {
			t.Errorf("docs/metrics.md does not name the state %s", s)
		}
	}
	for _, result := range results {
		if !strings.Contains(string(doc), "`"+result+"`") {
			t.Errorf("docs/metrics.md does not name the result %s", result)
		}
	}
}
