//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// target says which service is meant.
type target struct{ name, path string }

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.name, "name", "", "name of the service (default: the only one that runs)")
	cmd.Flags().StringVar(&t.path, "control", "", "`PATH` of its control socket")
}

func (t *target) client() (*control.Client, error) {
	switch {
	case t.path != "" && t.name != "":
		return nil, &exit{2, errors.New("--name and --control: one of them says which service is meant")}
	case t.path != "":
		return control.NewClient(t.path), nil
	case t.name != "":
		return control.NewClient(control.Locate(t.name)), nil
	}
	path, err := control.Find()
	if err != nil {
		return nil, &exit{1, err}
	}
	return control.NewClient(path), nil
}

// interruptible ends with the first INT or TERM.
func interruptible() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
}

// statusCommand is "handover status".
func statusCommand() *cobra.Command {
	var t target
	var asJSON, ready bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Say how a service and its workers are",
		Long: `Say how a service and its workers are.

With --ready, only whether clients should come: exit code 0, or 1 and the reason if no
worker accepts, the service is about to stop, or nobody answers. That is what Docker's
HEALTHCHECK and Kubernetes' probes by exec want.`,
		Example: `  handover status
  handover status --name shop --json
  handover status --ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			st, raw, err := client.Status(ctx)
			if err != nil {
				return &exit{1, err}
			}
			if ready {
				if ok, why := (workerset.Status{Groups: st.Groups, Stopping: st.Stopping}).Ready(); !ok {
					return &exit{1, fmt.Errorf("%s: not ready: %s", st.Service, why)}
				}
				fmt.Printf("%s: ready\n", st.Service)
				return nil
			}
			if asJSON {
				_, err = os.Stdout.Write(raw)
				return err
			}
			printStatus(os.Stdout, st, time.Now())
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&ready, "ready", false, "only whether clients should come: exit code 0 or 1")
	cmd.MarkFlagsMutuallyExclusive("json", "ready")
	return cmd
}

func printStatus(out io.Writer, st control.Status, now time.Time) {
	fmt.Fprintf(out, "%s: generation %d for %s, parent %d", st.Service, st.Generation, span(now.Sub(st.Since)), st.Pid)
	if st.Anchor != 0 {
		fmt.Fprintf(out, ", anchor %d", st.Anchor)
	}
	fmt.Fprintf(out, "\nprogram: %s\n", st.Program)
	if len(st.Listen) > 0 {
		fmt.Fprintf(out, "listens: %s\n", strings.Join(st.Listen, " "))
	}
	if st.Stopping {
		fmt.Fprintln(out, "stopping")
	}
	if u := st.Upgrade; u != nil {
		fmt.Fprintln(out, "upgrade: to generation "+outcome(*u, now))
	}
	if st.Previous != 0 {
		fmt.Fprintf(out, "rollback: possible, to generation %d\n", st.Previous)
	}
	if st.Upgrading {
		fmt.Fprintln(out, "upgrade: another one is under way")
	}
	for _, g := range st.Groups {
		fmt.Fprintln(out)
		printGroup(out, g, now)
	}
}

// outcome is how an upgrade has ended, or where it is.
func outcome(u control.Outcome, now time.Time) string {
	if u.Result == control.Probation {
		return fmt.Sprintf("%d is on probation, for another %s", u.Generation, span(u.Until.Sub(now)))
	}
	s := fmt.Sprintf("%d %s %s ago", u.Generation, u.Result, span(now.Sub(u.Time)))
	if u.Reason != "" {
		s += ": " + firstLine(u.Reason)
	}
	return s
}

func printGroup(out io.Writer, g workerset.GroupStatus, now time.Time) {
	serve := 0
	for _, w := range g.Workers {
		if w.State == "serving" || w.State == "degraded" {
			serve++
		}
	}
	fmt.Fprintf(out, "group %s: %d of %d serve, %d failures, %d restarts\n", g.Name, serve, g.Count, g.Failures, g.Restarts)
	if g.Halted != "" {
		fmt.Fprintf(out, "  %s\n", firstLine(g.Halted))
	}
	if len(g.WaitsFor) > 0 {
		fmt.Fprintf(out, "  waits for %s\n", strings.Join(g.WaitsFor, ", "))
	}
	for _, w := range g.Waiting {
		fmt.Fprintf(out, "  %s/%d is empty after %d tries", g.Name, w.Slot, w.Failures)
		if !w.Until.IsZero() {
			fmt.Fprintf(out, ", the next in %s", span(w.Until.Sub(now)))
		}
		fmt.Fprintf(out, ": %s\n", firstLine(w.Reason))
	}
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "  WORKER\tID\tGENERATION\tPID\tSTATE\tUPTIME\tOPEN\tIDLE\tACCEPTED\tIN\tOUT\t")
	for _, w := range g.Workers {
		note := firstLine(w.Status)
		if w.Cause != "" {
			note = strings.TrimSpace(w.Cause + ": " + firstLine(w.Reason))
		}
		fmt.Fprintf(tw, "  %s/%d\t%d\t%d\t%d\t%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\n", w.Group, w.Slot, w.ID, w.Generation, w.Pid, w.State, span(now.Sub(w.Started)), w.Active, w.Idle, w.Served, w.MovedIn, w.MovedOut, note)
	}
	tw.Flush()
	for _, d := range g.Deaths {
		fmt.Fprintf(out, "  %s ago %s/%d failed, pid %d of generation %d: %s: %s\n", span(now.Sub(d.Time)), g.Name, d.Slot, d.Pid, d.Generation, d.Cause, firstLine(d.Reason))
	}
}

// firstLine is what fits in a table. It is somebody else's text: nothing of it is to
// steer the terminal.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return '?'
		}
		return r
	}, line)
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
