//go:build unix

package main

import (
	"cmp"
	"fmt"
	"math"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/draintest"
	"github.com/handover-go/handover/draintest/load"
)

// A row is what came of one peer.
type row struct {
	name, restart, version string
	values                 [len(columns)]float64
	requests               int
	behind                 time.Duration // how late this machine was with a request
	failures               load.Failures
	kinds                  []string // what else was found
}

// columns are what is compared: less is better.
var columns = [...]struct {
	title, unit string
	places      int
}{
	{"failed", "", 0},
	{"idle connections closed", "", 0},
	{"p99 in a restart", " ms", 1},
	{"p99 otherwise", " ms", 1},
	{"takeover", " ms", 0},
	{"peak memory", " MB", 0},
}

func newRow(p peer, r *draintest.Report, version string) row {
	var takeover []time.Duration
	for _, x := range r.Rounds {
		if x.Changed > 0 {
			takeover = append(takeover, x.Changed)
		}
	}
	slices.Sort(takeover)
	w := row{name: p.name, restart: p.restart, version: version, requests: r.Load.Started, behind: r.Load.Behind, failures: r.Load.Failures}
	middle := math.NaN()
	if n := len(takeover); n > 0 {
		middle = millis(takeover[n/2])
	}
	w.values = [len(columns)]float64{float64(r.Load.Failures.Total()), float64(r.Load.ClosedIdle), millis(r.P99In), millis(r.P99Out),
		middle, float64(r.Memory) / (1 << 20)}
	for _, f := range r.Findings {
		if f.Name != "failed" && f.Name != "closed-idle" {
			w.kinds = append(w.kinds, f.Text)
		}
	}
	return w
}

func millis(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// shown is a value as the table shows it.
func shown(column int, v float64) string {
	if math.IsNaN(v) {
		return "never"
	}
	return fmt.Sprintf("%.*f%s", columns[column].places, v, columns[column].unit)
}

// best returns the best of the rows in a column, and its value as it is shown.
func best(rows []row, column int) (row, string) {
	b := slices.MinFunc(rows, func(x, y row) int {
		switch a, b := x.values[column], y.values[column]; {
		case a < b || math.IsNaN(b) && !math.IsNaN(a):
			return -1
		case a > b || math.IsNaN(a) && !math.IsNaN(b):
			return 1
		}
		return 0
	})
	return b, shown(column, b.values[column])
}

// document is docs/compare.md.
func document(rows []row, machine string, rounds int, took time.Duration) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Compared with others

Written by %[1]smake compare%[1]s, which repeats it: as root, on Debian, in about %[2]d minutes. It
installs what is missing, runs one %[1]shandover draintest%[1]s after the other with the same clients
in each, and starts every peer as its own documentation recommends for a graceful restart
([internal/compare](../internal/compare)).

Measured on %[3]s.

The clients: 4 each with a new connection for every request, with slow requests (300 ms),
with trickling uploads, and with streams, and 16 that keep their connection; 10 requests a
second each, open loop, never sent again. %[4]d restarts, at least 2 s apart. Where the machine
was busy with something else, so that a client woke up more than %[5]v late, the run is repeated,
up to %[6]d times in all, and the one with the least of it counts, whatever came of it.

`, "`", int(math.Ceil(took.Minutes())), machine, rounds, quietEnough, attempts)
	b.WriteString("| | restart |")
	for _, c := range columns {
		fmt.Fprintf(&b, " %s |", c.title)
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|", len(columns)) + "\n")
	for _, r := range rows {
		fmt.Fprintf(&b, "| %s | %s |", r.name, r.restart)
		for i, v := range r.values {
			text := shown(i, v)
			if _, top := best(rows, i); text == top {
				text = "**" + text + "**"
			}
			fmt.Fprintf(&b, " %s |", text)
		}
		b.WriteString("\n")
	}
	b.WriteString("\nBold is the best of a column. ")
	b.WriteString(behind(rows))
	fmt.Fprintf(&b, `

- **failed** are requests of which any client would have noticed. Of how many, and how:
`)
	for _, r := range rows {
		fmt.Fprintf(&b, "  - %s: %d of %d", r.name, r.failures.Total(), r.requests)
		if r.behind > quietEnough {
			fmt.Fprintf(&b, ", on a machine that was %v late with one", r.behind.Round(time.Millisecond))
		}
		if r.failures.Total() > 0 {
			fmt.Fprintf(&b, " (%v)", r.failures)
		}
		for _, k := range r.kinds {
			fmt.Fprintf(&b, "; %s", k)
		}
		b.WriteString("\n")
	}
	b.WriteString(`- **idle connections closed** are those that the server has closed while no request was under
  way on them, or has said in an answer that it will. HTTP allows it, and a client that sends
  in that moment sees a reset.
- **p99** is the 99th percentile of the latency, from the intended time of sending, of requests
  that take no time by design (new connections and kept ones): of those whose time came while a
  restart went on, and of all others. nginx and HAProxy pass them on to a server that is not
  restarted, which costs them some; all others are that server themselves.
- **takeover** is the median time from the signal or command to the first answer by a new
  process, with the time that a program in that language needs to start.
- **peak memory** is that of all processes of the peer (proportional set size): of a proxy
  without the server behind it.

Versions: `)
	var versions []string
	for _, r := range rows {
		if v := r.version; v != "" && !slices.Contains(versions, v) {
			versions = append(versions, v)
		}
	}
	b.WriteString(strings.Join(versions, "; ") + ".\n")
	return b.String()
}

// behind says in which columns handover is not the best.
func behind(rows []row) string {
	ours := slices.DeleteFunc(slices.Clone(rows), func(r row) bool { return !strings.HasPrefix(r.name, "handover") })
	if len(ours) == 0 {
		return ""
	}
	var list []string
	for i, c := range columns {
		top, value := best(rows, i)
		if own, ours := best(ours, i); ours != value {
			list = append(list, fmt.Sprintf("%s (%s with %s, %s with %s)", c.title, value, top.name, ours, own.name))
		}
	}
	if list == nil {
		return "There is no column in which handover is not the best, or as good."
	}
	return "Handover is not the best in: " + strings.Join(list, "; ") + "."
}

// versionOf is a peer's version, in a line.
func versionOf(p peer, dir string) string {
	switch {
	case strings.HasPrefix(p.name, "handover, "):
		return "Go " + strings.TrimPrefix(runtime.Version(), "go")
	case p.name == "tableflip":
		if info, ok := debug.ReadBuildInfo(); ok {
			for _, d := range info.Deps {
				if strings.HasSuffix(d.Path, "/tableflip") {
					return "tableflip " + d.Version
				}
			}
		}
		return ""
	case p.version == nil:
		return ""
	}
	cmd := exec.Command(p.version[0], p.version[1:]...)
	cmd.Dir = dir
	out, _ := cmd.CombinedOutput()
	line, _, _ := strings.Cut(strings.TrimSpace(string(out)), "\n")
	number := regexp.MustCompile(`[0-9]+\.[0-9][0-9a-z.+~-]*`).FindString(line)
	name := filepath.Base(p.version[0])
	switch {
	case strings.HasPrefix(line, "pm2 "):
		name = "pm2"
	default:
		name = cmp.Or(map[string]string{"python3": "Python", "node": "Node", "haproxy": "HAProxy"}[name], name)
	}
	return name + " " + number
}

// machine is what it was measured on.
func machine() string {
	kernel, _ := exec.Command("uname", "-sr").Output()
	return fmt.Sprintf("%s, %d CPUs, %s", strings.TrimSpace(string(kernel)), runtime.NumCPU(), time.Now().Format("2 January 2006"))
}
