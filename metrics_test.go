package handover_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	names "github.com/prometheus/common/model"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/draintest/load"
)

const (
	noProbation = "TEST_PROBATION=-1s"
	openMetrics = "application/openmetrics-text; version=1.0.0"
)

// asker asks a service where it can be asked, each time by a new connection.
type asker struct {
	name   string
	http   http.Client
	mayDie bool // whoever answers
}

// askAt is for an address of the network, or the path of a control socket.
func askAt(at string) *asker {
	network := "tcp"
	if strings.Contains(at, "/") {
		network = "unix"
	}
	a := &asker{name: at}
	a.http.Timeout = 20 * time.Second
	a.http.Transport = &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, network, at)
	}}
	return a
}

// ask returns an answer.
func (a *asker) ask(method, path, accept string) (resp *http.Response, body string, err error) {
	req, err := http.NewRequest(method, "http://handover"+path, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", accept)
	if resp, err = a.http.Do(req); err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// samples are what a scrape says, by name and labels.
type samples map[string]float64

// scrape asks until there is an answer: a process that is just being replaced has none.
func (a *asker) scrape() (samples, error) {
	for {
		resp, body, err := a.ask("GET", "/metrics", "text/plain")
		switch {
		case err != nil && a.mayDie && (errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET)):
			continue
		case err != nil:
			return nil, err
		case resp.StatusCode == http.StatusServiceUnavailable:
			continue
		case resp.StatusCode != http.StatusOK:
			return nil, fmt.Errorf("%s: %s", resp.Status, body)
		}
		parser := expfmt.NewTextParser(names.UTF8Validation)
		families, err := parser.TextToMetricFamilies(strings.NewReader(body))
		if err != nil {
			return nil, err
		}
		all := samples{}
		for name, f := range families {
			for _, m := range f.GetMetric() {
				all.add(strings.TrimPrefix(name, "handover_"), f.GetType(), m)
			}
		}
		return all, nil
	}
}

func (s samples) add(name string, typ dto.MetricType, m *dto.Metric) {
	var labels []string
	for _, l := range m.GetLabel() {
		labels = append(labels, l.GetValue())
	}
	key := name + "{" + strings.Join(labels, ",") + "}"
	switch typ {
	case dto.MetricType_COUNTER:
		s[key] = m.GetCounter().GetValue()
	case dto.MetricType_GAUGE:
		s[key] = m.GetGauge().GetValue()
	case dto.MetricType_HISTOGRAM:
		s[key+"_count"], s[key+"_sum"] = float64(m.GetHistogram().GetSampleCount()), m.GetHistogram().GetSampleSum()
	}
}

// counts reports whether a sample may not go backwards.
func counts(key string) bool {
	name, rest, _ := strings.Cut(key, "{")
	return name == "generation" || strings.HasSuffix(name, "_total") || strings.HasSuffix(rest, "_count") || strings.HasSuffix(rest, "_sum")
}

// scraping scrapes all the time, in turn at each address, until stop is called, which
// asks once more and returns the answer: no counter ever goes backwards or away, whoever answers.
func scraping(t *testing.T, at ...*asker) (stop func() samples) {
	t.Helper()
	quit := make(chan struct{})
	var last samples
	var wg sync.WaitGroup
	wg.Go(func() {
		for i, end := 0, false; ; i++ {
			a := at[i%len(at)]
			now, err := a.scrape()
			if err != nil {
				t.Errorf("%s: %v", a.name, err)
				return
			}
			for key, was := range last {
				if n, ok := now[key]; counts(key) && (!ok || n < was) {
					t.Errorf("%s: %s was %v and is %v (%v)", a.name, key, was, n, ok)
				}
			}
			last = now
			if end {
				return
			}
			select {
			case <-quit:
				end = true // but once more
			case <-time.After(10 * time.Millisecond):
			}
		}
	})
	end := sync.OnceFunc(func() { close(quit); wg.Wait() })
	t.Cleanup(end)
	return func() samples { end(); return last }
}

// is compares some samples.
func (s samples) is(t *testing.T, want samples) {
	t.Helper()
	for key, n := range want {
		if got, ok := s[key]; !ok || got != n {
			t.Errorf("%s is %v (%v), not %v", key, got, ok, n)
		}
	}
}

// drained waits until so many workers have.
func drained(t *testing.T, path string, want float64) {
	t.Helper()
	until(t, 20*time.Second, func() string {
		all, err := askAt(path).scrape()
		if err != nil {
			t.Fatal(err)
		}
		if n := all["worker_drain_duration_seconds{web}_count"]; n != want {
			return fmt.Sprintf("%v workers have drained", n)
		}
		return ""
	})
}

// TestMetricsCount: each connection is counted once, whatever becomes of its worker.
func TestMetricsCount(t *testing.T) {
	s, path := controlled(t, 2, noProbation)
	stop := scraping(t, askAt(path))
	get := func(path string) {
		t.Helper()
		if resp, body, err := askAt(s.addr).ask("GET", path, ""); err != nil {
			t.Fatalf("%v, %v: %s", err, resp, body)
		}
	}
	for range 20 {
		get("/")
	}
	s.upgrade()
	for range 10 {
		get("/")
	}
	from := s.mark()
	get("/fail")
	if _, err := s.waitFrom(from, has(`msg="worker exited"`, "cause=error")); err != nil {
		t.Fatal(err)
	}
	s.upgrade()
	drained(t, path, 5) // the last that is heard of a worker may be its end
	stop().is(t, samples{
		"connections_accepted_total{web}": 31, "connections_cut_total{web}": 0, "generation{}": 3,
		"worker_restarts_total{error,web}": 1, "worker_failures_total{web}": 1, "worker_start_duration_seconds{web}_count": 7,
		"upgrades_total{done}": 2, "upgrades_total{failed}": 0, "upgrade_duration_seconds{}_count": 2,
		"workers{3,web,serving}": 2, "workers_wanted{web}": 2, "connections_open{web}": 0,
	})
	s.stop()
}

// TestMetricsUnderLoad: no counter goes backwards while clients come and stay, the service is
// upgraded, an upgrade fails, and a worker is killed.
func TestMetricsUnderLoad(t *testing.T) {
	status := freeAddr(t)
	s, path := controlled(t, 2, noProbation, "TEST_STATUS="+statusFile(t, status))
	stop := scraping(t, askAt(path), askAt(status))
	l := s.loadOf(keepingRate, map[load.Kind]int{load.KeepAlive: 4, load.New: 2})
	for i := range 3 {
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	from := s.mark()
	s.replace(func(tmp string) error { return os.WriteFile(tmp, []byte("#!/bin/sh\nexit 3\n"), 0o755) })
	if ev := result(t, asking(t, path)); ev.Result != "failed" {
		t.Errorf("%+v", ev)
	}
	s.install()
	drained(t, path, 6) // so that one of the others is killed
	at, peers := s.killWorker()
	if _, err := s.waitFrom(from, has(`msg="worker serves"`)); err != nil {
		t.Fatal(err)
	}
	s.upgrade()
	answered(t, l, "generation=5")
	r := l.Stop().ExceptAt(at, peers)
	if err := r.Check(); err != nil {
		t.Errorf("clients noticed: %v", err)
	}
	all := stop()
	all.is(t, samples{
		"generation{}": 5, "upgrades_total{done}": 4, "upgrades_total{failed}": 1, "upgrade_duration_seconds{}_count": 4,
		"worker_restarts_total{signal,web}": 1, "worker_failures_total{web}": 1, "worker_start_duration_seconds{web}_count": 11,
	})
	in, out := all["connections_moved_in_total{web}"], all["connections_moved_out_total{web}"]
	if in == 0 || out < in || all["connections_accepted_total{web}"] < 6 {
		t.Errorf("%v moved in, %v moved out, %v accepted", in, out, all["connections_accepted_total{web}"])
	}
	resp, body, err := askAt(status).ask("GET", "/metrics", openMetrics)
	if err != nil || !strings.HasPrefix(resp.Header.Get("Content-Type"), openMetrics) || !strings.HasSuffix(body, "\n# EOF\n") {
		t.Errorf("%v, %v\n%s", err, resp, body)
	}
	s.stop()
}

// TestMetricsEarly: nothing is said that might have to be taken back, and who does not wait
// for it holds up nobody.
func TestMetricsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	handover.AskEarly(w, httptest.NewRequestWithContext(ctx, "GET", "/metrics", nil))
	if w.Body.Len() > 0 {
		t.Errorf("%s", w.Body)
	}
}
