package metrics

import (
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/wire"
	"github.com/handover-go/handover/workerset"
)

func desc(name, help string, labels ...string) *prometheus.Desc {
	d := prometheus.NewDesc("handover_"+name, help, labels, nil)
	descs = append(descs, d)
	return d
}

// descs are all of them.
var descs []*prometheus.Desc

var (
	buildInfo  = desc("build_info", "1, with what the parent is: the service's name, and its program's main package, version, revision and Go version.", "service", "path", "version", "revision", "go_version")
	generation = desc("generation", "The generation that decides: 1 for the first, one more with every upgrade.")
	since      = desc("parent_start_time_seconds", "When the parent began to decide, in seconds since 1970.")

	workers  = desc("workers", "Worker processes, by what they do and the generation that they belong to.", "group", "state", "generation")
	wanted   = desc("workers_wanted", "How many workers a group is to have.", "group")
	restarts = desc("worker_restarts_total", "Workers that had to be replaced because they ended, asked to or had reached a limit, and not for a roll, by cause.", "group", "cause")
	failures = desc("worker_failures_total", "Failures of workers, also of those that could go on.", "group")
	starts   = desc("worker_start_duration_seconds", "Time from a worker's start until it could serve.", "group")
	drains   = desc("worker_drain_duration_seconds", "Time from the beginning of a worker's drain until its end.", "group")

	upgrades = desc("upgrades_total", "Upgrades that were tried, by what has become of them.", "result")
	upgrade  = desc("upgrade_duration_seconds", "Time from the beginning of an upgrade until its workers had replaced all others.")

	open     = desc("connections_open", "Connections that workers have, as they said last.", "group")
	idle     = desc("connections_idle", "Those of them that wait for a request.", "group")
	accepted = desc("connections_accepted_total", "Connections that workers have accepted, and packets that they have read.", "group")
	movedIn  = desc("connections_moved_in_total", "Connections that came from another worker.", "group")
	movedOut = desc("connections_moved_out_total", "Connections that went to another worker.", "group")
	cut      = desc("connections_cut_total", "Connections that a drain had to cut because its time was up.", "group")
)

// collector has been collected.
type collector []prometheus.Metric

func (c collector) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range descs {
		ch <- d
	}
}

func (c collector) Collect(ch chan<- prometheus.Metric) {
	for _, m := range c {
		ch <- m
	}
}

func (c *collector) gauge(d *prometheus.Desc, v float64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...))
}

func (c *collector) counter(d *prometheus.Desc, v uint64, labels ...string) {
	*c = append(*c, prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...))
}

func (c *collector) histogram(d *prometheus.Desc, h histogram, labels ...string) {
	buckets, count := h.cumulative()
	*c = append(*c, prometheus.MustNewConstHistogram(d, count, h.Sum, buckets, labels...))
}

// collect says what the book has, and how the set is.
func collect(b *book, st workerset.Status, about About) (c collector) {
	build := readBuild()
	c.gauge(buildInfo, 1, text(about.Service), text(build.path), text(build.version), build.revision, build.goVersion)
	c.gauge(generation, float64(st.Generation))
	c.gauge(since, float64(about.Since.UnixMilli())/1000)
	for _, gs := range st.Groups {
		c.now(gs, st.Generation)
	}
	for name, g := range b.Groups {
		c.totals(b, name, g)
	}
	// All that there may be, so that the first one is an increase.
	for _, result := range results {
		b.Upgrades[result] += 0
	}
	for result, n := range b.Upgrades {
		c.counter(upgrades, n, result)
	}
	c.histogram(upgrade, b.Upgrade)
	return c
}

// now is how a group is.
func (c *collector) now(gs workerset.GroupStatus, current int) {
	type kind struct {
		state      string
		generation int
	}
	// Also what there is none of, so that nobody has to ask for what is not there.
	n := map[kind]int{}
	for s := lifecycle.Spawning; s < lifecycle.Exited; s++ {
		n[kind{s.String(), current}] = 0
	}
	var active, waiting int
	for _, w := range gs.Workers {
		n[kind{w.State, w.Generation}]++
		active += max(0, w.Active)
		waiting += max(0, w.Idle)
	}
	for k, n := range n {
		c.gauge(workers, float64(n), text(gs.Name), k.state, strconv.Itoa(k.generation))
	}
	c.gauge(wanted, float64(gs.Count), text(gs.Name))
	c.gauge(open, float64(active), text(gs.Name))
	c.gauge(idle, float64(waiting), text(gs.Name))
}

// text is what a label may hold: names may be anything.
func text(s string) string { return strings.ToValidUTF8(s, "?") }

// totals are what a group has come to, also one that there is not any more.
func (c *collector) totals(b *book, name string, g group) {
	label := text(name)
	for _, cause := range wire.Causes {
		g.Restarts[string(cause)] += 0
	}
	for cause, n := range g.Restarts {
		c.counter(restarts, n, label, cause)
	}
	c.counter(failures, g.Failures, label)
	c.histogram(starts, g.Start, label)
	c.histogram(drains, g.Drain, label)
	conns := b.connections(name)
	c.counter(accepted, conns.Accepted, label)
	c.counter(movedIn, conns.MovedIn, label)
	c.counter(movedOut, conns.MovedOut, label)
	c.counter(cut, conns.Cut, label)
}
