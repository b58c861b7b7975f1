//go:build unix

package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// This file says how a status is shown.

// view is one status on its way to the screen.
type view struct {
	style
	st  control.Status
	now time.Time
	// before is the status that was shown last, if there was one: what a worker uses of
	// the CPUs is counted from then on, and otherwise from its start.
	before   *control.Status
	beforeAt time.Time
}

// lines are what is shown.
func (v view) lines() (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, v.line(fmt.Sprintf(format, args...))) }
	st := v.st
	head := fmt.Sprintf("%s: generation %d for %s, parent %d", v.paint(bold, st.Service), st.Generation, v.since(st.Since), st.Pid)
	if st.Anchor != 0 {
		head += fmt.Sprintf(", anchor %d", st.Anchor)
	}
	add("%s", head)
	add("program: %s", st.Program)
	if b := buildText(st); b != "" {
		add("build: %s", b)
	}
	for _, w := range st.Warnings {
		wrapped := v.wrap("         ", firstLine(w))
		wrapped[0] = strings.Replace(wrapped[0], "        ", v.paint(yellow, "warning:"), 1)
		lines = append(lines, wrapped...)
	}
	if len(st.Listen) > 0 {
		add("listens: %s", strings.Join(st.Listen, " "))
	}
	if st.Stopping {
		add("%s", v.paint(yellow, "stopping"))
	}
	if u := st.Upgrade; u != nil {
		add("upgrade: to generation %s", v.outcome(*u))
	}
	if st.Previous != 0 {
		add("rollback: possible, to generation %d", st.Previous)
	}
	if st.Upgrading {
		add("upgrade: another one is under way")
	}
	for _, g := range st.Groups {
		lines = append(lines, "")
		lines = append(lines, v.group(g)...)
	}
	return lines
}

// outcome is how an upgrade has ended, or where it is.
func (v view) outcome(u control.Outcome) string {
	if u.Result == control.Probation {
		return fmt.Sprintf("%d is on %s, for another %s", u.Generation, v.result(u.Result), span(u.Until.Sub(v.now)))
	}
	s := fmt.Sprintf("%d %s %s ago", u.Generation, v.result(u.Result), v.since(u.Time))
	if u.Reason != "" {
		s += ": " + firstLine(u.Reason)
	}
	return s
}

// buildText says which build runs, as far as it is known.
func buildText(st control.Status) string {
	var parts []string
	b := st.Build
	if b.Path != "" && b.Path != st.Program {
		parts = append(parts, b.Path)
	}
	for _, s := range []string{strings.TrimPrefix(b.String(), "build "), b.Go} {
		if s != "" {
			parts = append(parts, s)
		}
	}
	return strings.Join(parts, ", ")
}

func (v view) since(t time.Time) string { return span(v.now.Sub(t)) }

func (v view) result(r control.Result) string {
	colours := map[control.Result]string{control.Done: green, control.Failed: red, control.RolledBack: red, control.Stopped: red, control.Rolling: yellow, control.Probation: yellow}
	return v.paint(colours[r], string(r))
}

// group is what there is to say of a group.
func (v view) group(g workerset.GroupStatus) (lines []string) {
	add := func(format string, args ...any) { lines = append(lines, v.line(fmt.Sprintf(format, args...))) }
	serve := 0
	for _, w := range g.Workers {
		if w.State == "serving" || w.State == "degraded" {
			serve++
		}
	}
	colour := green
	if serve < g.Count {
		colour = yellow
	}
	add("group %s: %s, %d failures, %d restarts", g.Name, v.paint(colour, fmt.Sprintf("%d of %d serve", serve, g.Count)), g.Failures, g.Restarts)
	if g.Halted != "" {
		add("  %s", v.paint(red, firstLine(g.Halted)))
	}
	if len(g.WaitsFor) > 0 {
		add("  waits for %s", strings.Join(g.WaitsFor, ", "))
	}
	for _, w := range g.Waiting {
		what := "is empty"
		if slices.ContainsFunc(g.Workers, func(o workerset.Worker) bool { return o.Slot == w.Slot && o.Accepts() }) {
			what = "gets no other worker"
		}
		text := fmt.Sprintf("  %s/%d %s", g.Name, w.Slot, what)
		switch w.Failures {
		case 0: // what was there has served
		case 1:
			text += " after one try"
		default:
			text += fmt.Sprintf(" after %d tries", w.Failures)
		}
		if !w.Until.IsZero() {
			text += ", the next in " + span(w.Until.Sub(v.now))
		}
		add("%s: %s", text, firstLine(w.Reason))
	}
	if len(g.Workers) > 0 {
		lines = append(lines, v.workers(g.Workers).lines(v.style)...)
	}
	for _, d := range g.Deaths {
		what, why := "failed", d.Cause+": "
		if d.Cause == "recycle" {
			what, why = "was recycled", ""
		}
		add("  %s ago %s/%d %s, pid %d of generation %d: %s%s", v.since(d.Time), g.Name, d.Slot, what, d.Pid, d.Generation, why, firstLine(d.Reason))
	}
	return lines
}

// workers is a table of them: those of this generation, and then older ones that still
// hold clients.
func (v view) workers(list []workerset.Worker) table {
	t := table{columns: []column{
		{name: "WORKER"}, {name: "ID", right: true, drop: 3}, {name: "GEN", right: true}, {name: "PID", right: true}, {name: "STATE"},
		{name: "UPTIME", right: true}, {name: "CPU", right: true}, {name: "MEM", right: true}, {name: "OPEN", right: true},
		{name: "IDLE", right: true, drop: 2}, {name: "ACCEPTED", right: true, drop: 1}, {name: "IN", right: true, drop: 5},
		{name: "OUT", right: true, drop: 6}, {name: "RESTARTS", right: true, drop: 4},
	}}
	list = slices.Clone(list)
	slices.SortStableFunc(list, func(a, b workerset.Worker) int {
		return cmp.Or(cmp.Compare(b.Generation, a.Generation), cmp.Compare(a.Slot, b.Slot), cmp.Compare(b.ID, a.ID))
	})
	for _, w := range list {
		number := func(n int) cell { return plain(fmt.Sprint(n)) }
		cpu, mem := v.usage(w)
		t.rows = append(t.rows, row{
			cells: []cell{
				plain(fmt.Sprintf("%s/%d", w.Group, w.Slot)), number(w.ID), number(w.Generation), number(w.Pid), {w.State, stateColour(w.State)},
				plain(v.since(w.Started)), plain(cpu), plain(mem), number(w.Active), number(w.Idle), number(w.Served), number(w.MovedIn),
				number(w.MovedOut), number(w.Restarts),
			},
			comment: v.comments(w),
		})
	}
	return t
}

func stateColour(state string) string {
	switch state {
	case "serving":
		return green
	case "degraded", "condemned", "terminating", "killing", "exited":
		return red
	case "draining":
		return yellow
	}
	return cyan
}

// comments are what does not fit into columns: why it ends or what it says of itself, and
// what keeps it while it drains.
func (v view) comments(w workerset.Worker) (lines []string) {
	switch {
	case w.Cause != "":
		lines = append(lines, strings.TrimSuffix(w.Cause+": "+firstLine(w.Reason), ": "))
	case w.Status != "":
		lines = append(lines, firstLine(w.Status))
	}
	if w.Deadline.IsZero() {
		return lines
	}
	text := fmt.Sprintf("drains for %s, at most %s more", v.since(w.Drain), span(w.Deadline.Sub(v.now)))
	if len(w.Conns) > 0 {
		text += ", held by"
	}
	for i, c := range w.Conns {
		if i > 0 {
			text += ","
		}
		text += fmt.Sprintf(" %s %s %s", cmp.Or(harmless(c.Peer), "somebody"), harmless(c.State), span(time.Duration(c.AgeMS)*time.Millisecond))
	}
	if more := w.Active - len(w.Conns); more > 0 && len(w.Conns) > 0 {
		text += fmt.Sprintf(" and %d more", more)
	}
	return append(lines, text)
}

// usage is what a worker uses of the CPUs, and of memory.
func (v view) usage(w workerset.Worker) (cpu, mem string) {
	u := w.Usage
	if u == nil {
		return "-", "-"
	}
	used, from := u.CPU, w.Started
	if old := v.usageBefore(w); old != nil {
		used, from = used-old.CPU, v.beforeAt
	}
	cpu = "-"
	if d := v.now.Sub(from).Seconds(); d > 0 {
		cpu = fmt.Sprintf("%.1f%%", max(0, 100*used/d))
	}
	return cpu, short(u.RSS)
}

// usageBefore is what the same worker had used when it was shown last, or nil.
func (v view) usageBefore(w workerset.Worker) *workerset.Usage {
	if v.before == nil {
		return nil
	}
	for _, g := range v.before.Groups {
		for _, o := range g.Workers {
			if o.Pid == w.Pid && o.Started.Equal(w.Started) {
				return o.Usage
			}
		}
	}
	return nil
}

// short is a number of bytes in at most five characters.
func short(n int64) string {
	f := float64(n)
	for _, unit := range []string{"", "K", "M", "G"} {
		if f < 1000 && (unit == "" || f >= 99.95) {
			return fmt.Sprintf("%.0f%s", f, unit)
		}
		if f < 99.95 {
			return fmt.Sprintf("%.1f%s", f, unit)
		}
		f /= 1024
	}
	return fmt.Sprintf("%.1fT", f)
}

// span is a time as a person reads it: 3s, 2m10s, 5h7m, 3d4h.
func span(d time.Duration) string {
	d = max(0, d)
	switch day := 24 * time.Hour; {
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", d/time.Minute, d%time.Minute/time.Second)
	case d < day:
		return fmt.Sprintf("%dh%dm", d/time.Hour, d%time.Hour/time.Minute)
	default:
		return fmt.Sprintf("%dd%dh", d/day, d%day/time.Hour)
	}
}
