//go:build unix

package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/history"
)

// historyCommand is "handover history".
func historyCommand() *cobra.Command {
	var t target
	var asJSON bool
	var limit int
	cmd := &cobra.Command{
		Use:   "history [flags] [WORKER|N]",
		Short: "Say how workers have ended, and upgrades",
		Long: `Say how workers have ended, also in an orderly way, upgrades, and parents that have died:
when, which, why, how long it lasted, how long it drained, and what was cut. The last 512
are remembered, over upgrades and a parent's death, too.

WORKER is GROUP/SLOT, such as web/1; GROUP, or GROUP/SLOT/ID/GENERATION, as in a worker's
HANDOVER_WORKER. A number N is that of an entry, as the table shows it in its first column:
all of it is shown then, with the goroutines of a crash.`,
		Example: `  handover history
  handover history web/1
  handover history 12
  handover history -n 5 --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			which := ""
			if len(args) > 0 {
				which = args[0]
			}
			if _, err := control.ParseSelector(which); err != nil {
				return &exit{2, err}
			}
			if limit < 0 {
				return &exit{2, fmt.Errorf("-n %d: must not be negative", limit)}
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			entry, err := strconv.Atoi(which)
			one := err == nil
			var h control.History
			var raw []byte
			if one {
				h, raw, err = client.Entry(ctx, entry)
			} else {
				h, raw, err = client.History(ctx, which, limit)
			}
			switch {
			case err != nil:
				return &exit{1, err}
			case one && len(h.Entries) == 0:
				return &exit{1, fmt.Errorf("the history has no entry %d (any more): 'handover history' shows which there are; a worker is named GROUP/SLOT", entry)}
			case asJSON:
				_, err = os.Stdout.Write(raw)
				return err
			case one:
				printEntry(os.Stdout, h.Entries[0])
			default:
				printHistory(os.Stdout, h, styleOf(os.Stdout), time.Now())
			}
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON, with all that is remembered")
	cmd.Flags().IntVarP(&limit, "number", "n", 50, "how many at most, the last ones; 0: all")
	return cmd
}

func printHistory(out io.Writer, h control.History, s style, now time.Time) {
	if len(h.Entries) == 0 {
		fmt.Fprintln(out, "nothing has happened yet")
		return
	}
	t := table{columns: []column{
		{name: "N", right: true}, {name: "AGO", right: true}, {name: "WHAT"}, {name: "ID", right: true, drop: 4}, {name: "GEN", right: true},
		{name: "PID", right: true, drop: 1}, {name: "LASTED", right: true}, {name: "DRAINED", right: true, drop: 2},
		{name: "SERVED", right: true, drop: 3}, {name: "CUT", right: true}, {name: "WHY"}, {text: true},
	}}
	for _, e := range h.Entries {
		cells := append([]cell{plain(strconv.Itoa(e.N)), plain(span(now.Sub(e.Time)))}, entryCells(e)...)
		t.rows = append(t.rows, row{cells: cells})
	}
	fmt.Fprintln(out, strings.Join(t.lines(s), "\n"))
}

// entryCells are what a row says beside its number and its time.
func entryCells(e history.Entry) []cell {
	number := func(n int) cell { return plain(strconv.Itoa(n)) }
	if u := e.Upgrade; u != nil {
		colour := map[string]string{string(control.Done): green}[u.Result]
		if colour == "" {
			colour = red
		}
		return []cell{
			{"upgrade", cyan}, plain(""), number(u.Generation), plain(""), plain(lasted(u.Began, e.Time)), plain(""),
			plain(""), plain(""), {u.Result, colour}, plain(firstLine(u.Reason)),
		}
	}
	if p := e.Parent; p != nil {
		return []cell{
			{"parent", cyan}, plain(""), number(p.Generation), number(p.Pid), plain(lasted(p.Started, e.Time)), plain(""),
			plain(""), plain(""), {"died", red}, plain(p.Exit),
		}
	}
	d := e.Death
	pid := "-"
	if d.Pid > 0 {
		pid = strconv.Itoa(d.Pid)
	}
	why := cell{text: d.Cause}
	if d.Failure {
		why.colour = red
	}
	return []cell{
		plain(fmt.Sprintf("%s/%d", d.Group, d.Slot)), number(d.ID), number(d.Generation), plain(pid), plain(lasted(d.Started, e.Time)),
		plain(lasted(d.Drain, e.Time)), number(d.Served), number(d.Cut), why, plain(deathText(d)),
	}
}

// deathText is what there is to say of an end besides its cause.
func deathText(d *history.Death) string {
	text := firstLine(d.Reason)
	switch {
	case d.Killed:
		text += " (it was sent SIGKILL)"
	case d.Terminated:
		text += " (it was sent SIGTERM)"
	case text == "" && d.Exit != "exit status 0":
		text = d.Exit
	}
	return strings.TrimSpace(text)
}

// lasted is the time between two, where there is one.
func lasted(from, to time.Time) string {
	if from.IsZero() {
		return "-"
	}
	return fine(to.Sub(from))
}

// fine is a span that may be short.
func fine(d time.Duration) string {
	if d < 10*time.Second {
		return fmt.Sprintf("%.1fs", max(0, d).Seconds())
	}
	return span(d)
}

// printEntry shows all of an entry.
func printEntry(out io.Writer, e history.Entry) {
	say := func(name, format string, args ...any) {
		fmt.Fprintf(out, "%-12s %s\n", name+":", fmt.Sprintf(format, args...))
	}
	if u := e.Upgrade; u != nil {
		say("upgrade", "to generation %d", u.Generation)
		say("when", "%s", e.Time.Local().Format(time.RFC3339))
		say("took", "%s", lasted(u.Began, e.Time))
		say("result", "%s", u.Result)
		text(out, "reason", u.Reason)
		text(out, "output", u.Output)
		return
	}
	if p := e.Parent; p != nil {
		say("parent", "of generation %d, pid %d", p.Generation, p.Pid)
		say("died", "%s, after %s", e.Time.Local().Format(time.RFC3339), lasted(p.Started, e.Time))
		if p.Exit != "" {
			say("exit", "%s", p.Exit)
		}
		return
	}
	d := e.Death
	say("worker", "%s/%d, id %d of generation %d, pid %d", d.Group, d.Slot, d.ID, d.Generation, d.Pid)
	say("ended", "%s, after %s", e.Time.Local().Format(time.RFC3339), lasted(d.Started, e.Time))
	say("cause", "%s", d.Cause)
	if d.Exit != "" {
		say("exit", "%s", d.Exit)
	}
	if !d.Drain.IsZero() {
		say("drained", "for %s", lasted(d.Drain, e.Time))
	}
	say("connections", "%d accepted, %d moved in, %d moved out, %d cut", d.Served, d.MovedIn, d.MovedOut, d.Cut)
	if d.Terminated || d.Killed {
		say("was sent", "%s", map[bool]string{true: "SIGKILL", false: "SIGTERM"}[d.Killed])
	}
	text(out, "reason", d.Reason)
	text(out, "goroutines", d.Dump)
	if d.DumpCut > 0 {
		fmt.Fprintf(out, "(%d bytes of the report are not remembered)\n", d.DumpCut)
	}
}

// text shows one of several lines below its name.
func text(out io.Writer, name, s string) {
	if s = strings.TrimRight(s, "\n"); s == "" {
		return
	}
	fmt.Fprintf(out, "%s:\n", name)
	for line := range strings.Lines(s) {
		fmt.Fprintf(out, "  %s\n", harmless(strings.TrimRight(line, "\r\n")))
	}
}
