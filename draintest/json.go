package draintest

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// The report as JSON. Times are in milliseconds from the load's beginning, and lasting ones
// in milliseconds. Fields are added, and never change what they mean; 1 is the version.
type (
	jsonReport struct {
		Version     int            `json:"version"`
		Verdict     string         `json:"verdict"` // pass, fail, untested
		Name        string         `json:"name"`
		Action      string         `json:"action"`
		Began       time.Time      `json:"began"`
		TookMS      float64        `json:"tookMs"`
		RoundsAsked int            `json:"roundsAsked"`
		Findings    []jsonFinding  `json:"findings"`
		Rounds      []jsonRound    `json:"rounds"`
		Requests    jsonCounts     `json:"requests"`
		Kinds       []jsonCounts   `json:"kinds"`
		Workers     map[string]int `json:"workers"` // answers by who gave them
		ClosedIdle  int            `json:"closedIdle"`
		BehindMS    float64        `json:"behindMs"`
		Failures    []jsonFailure  `json:"failures"` // the first 4096
		Timeline    []jsonPoint    `json:"timeline"`
		Histogram   []jsonBar      `json:"histogram"` // of good answers
		Processes   []jsonProcess  `json:"processes"`
		Before      jsonState      `json:"before"` // the first round
		MemoryPeak  int64          `json:"memoryPeakBytes"`
		P99In       float64        `json:"p99InRestartsMs"` // of requests that take no time by design
		P99Out      float64        `json:"p99OtherwiseMs"`
	}
	jsonFinding struct {
		Verdict string `json:"verdict"`
		Name    string `json:"name"`
		Round   int    `json:"round,omitempty"`
		Text    string `json:"text"`
		Cause   string `json:"usualCause,omitempty"`
	}
	jsonRound struct {
		N          int     `json:"round"`
		AtMS       float64 `json:"atMs"`
		ActionMS   float64 `json:"actionMs"`
		Err        string  `json:"error,omitempty"`
		ChangedMS  float64 `json:"changedMs,omitempty"`
		By         string  `json:"changedBy,omitempty"`
		SettledMS  float64 `json:"oldGoneMs,omitempty"`
		Answered   bool    `json:"answeredAfterwards"`
		Failed     int     `json:"failed"`
		ClosedIdle int     `json:"closedIdle"`
		jsonState
	}
	jsonState struct {
		Processes   int `json:"processes,omitempty"`
		Descriptors int `json:"descriptors,omitempty"`
	}
	jsonCounts struct {
		Kind     string         `json:"kind,omitempty"`
		Started  int            `json:"started"`
		Missed   int            `json:"missed"` // not started, though their time had come before the end
		OK       int            `json:"ok"`
		Failed   int            `json:"failed"`
		Excused  int            `json:"excused"`
		Failures map[string]int `json:"failures,omitempty"`
		P50      float64        `json:"p50Ms"`
		P90      float64        `json:"p90Ms"`
		P99      float64        `json:"p99Ms"`
		P999     float64        `json:"p999Ms"`
		Max      float64        `json:"maxMs"`
	}
	jsonFailure struct {
		AtMS   float64 `json:"atMs"`
		Round  int     `json:"round"`
		Kind   string  `json:"kind"`
		Class  string  `json:"class"`
		Detail string  `json:"detail"`
		ID     string  `json:"id"`
		TookMS float64 `json:"tookMs"`              // idle, for one that was closed while it was
		Nth    int     `json:"requestOnConnection"` // from 1; 0: there was no connection
		Think  float64 `json:"thinkMs"`             // how long the connection was idle before
		Worker string  `json:"worker,omitempty"`
		Local  string  `json:"local,omitempty"`
		Remote string  `json:"remote,omitempty"`
	}
	jsonPoint struct {
		AtMS       float64 `json:"atMs"`
		Kind       string  `json:"kind"`
		OK         int     `json:"ok"`
		Failed     int     `json:"failed"`
		ClosedIdle int     `json:"closedIdle"`
		P50        float64 `json:"p50Ms"`
		P99        float64 `json:"p99Ms"`
		Max        float64 `json:"maxMs"`
	}
	jsonBar struct {
		UpToMS float64 `json:"uptoMs"`
		Count  int     `json:"count"`
	}
	jsonProcess struct {
		PID     int      `json:"pid"`
		Args    []string `json:"args"`
		FromMS  float64  `json:"fromMs"`
		UntilMS *float64 `json:"untilMs"` // null: it lived at the end
	}
)

// MarshalJSON returns the whole report, for programs.
func (r *Report) MarshalJSON() ([]byte, error) {
	at := func(t time.Time) float64 { return millis(t.Sub(r.Began)) }
	doc := jsonReport{
		Version: 1, Verdict: r.Verdict().String(), Name: r.Name, Action: r.Action, Began: r.Began, TookMS: millis(r.Took),
		RoundsAsked: r.Asked, Requests: counts("", r.Load.Counts), Workers: r.Load.Workers, ClosedIdle: r.Load.ClosedIdle,
		BehindMS: millis(r.Load.Behind), Before: jsonState{r.Processes, r.FDs}, MemoryPeak: r.Memory,
		P99In: millis(r.P99In), P99Out: millis(r.P99Out),
		Findings: []jsonFinding{}, Rounds: []jsonRound{}, Kinds: []jsonCounts{}, Failures: []jsonFailure{},
		Timeline: []jsonPoint{}, Histogram: []jsonBar{}, Processes: []jsonProcess{},
	}
	for _, f := range r.Findings {
		doc.Findings = append(doc.Findings, jsonFinding{f.Verdict.String(), f.Name, f.Round, f.Text, f.Cause})
	}
	for _, x := range r.Rounds {
		doc.Rounds = append(doc.Rounds, jsonRound{x.N, at(x.Began), millis(x.Action), x.Err, millis(x.Changed), x.By,
			millis(x.Settled), x.Answered, x.Failed, x.Idle, jsonState{x.Processes, x.FDs}})
	}
	for _, k := range slices.Sorted(maps.Keys(r.Load.ByKind)) {
		doc.Kinds = append(doc.Kinds, counts(k.String(), r.Load.ByKind[k]))
	}
	for _, f := range r.Failures {
		doc.Failures = append(doc.Failures, jsonFailure{at(f.When), r.round(f.When), f.Kind.String(), f.Class.String(), f.Detail,
			f.ID, millis(f.When.Sub(f.Began)), f.Nth, millis(f.Think), f.Worker, f.Local, f.Remote})
	}
	for _, p := range r.Timeline {
		doc.Timeline = append(doc.Timeline, jsonPoint{millis(p.At), p.Kind.String(), p.OK, p.Failed, p.ClosedIdle,
			millis(p.P50), millis(p.P99), millis(p.Max)})
	}
	for _, b := range r.Latency {
		doc.Histogram = append(doc.Histogram, jsonBar{millis(b.UpTo), b.Count})
	}
	for _, l := range r.Lives {
		p := jsonProcess{PID: l.PID, Args: l.Args, FromMS: at(l.First)}
		if !l.Ended.IsZero() {
			until := at(l.Ended)
			p.UntilMS = &until
		}
		doc.Processes = append(doc.Processes, p)
	}
	return json.Marshal(doc)
}

func counts(kind string, c load.Counts) jsonCounts {
	failures := map[string]int{}
	for class, n := range c.Failures {
		if n > 0 {
			failures[load.Class(class).String()] = n
		}
	}
	l := c.Latency
	return jsonCounts{kind, c.Started, c.Missed, c.OK, c.Failures.Total(), c.Excused, failures,
		millis(l.P50), millis(l.P90), millis(l.P99), millis(l.P999), millis(l.Max)}
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
