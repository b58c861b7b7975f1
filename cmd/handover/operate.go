//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
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
		fmt.Fprintf(out, "upgrade: to generation %d %s %s ago", u.Generation, u.Result, span(now.Sub(u.Time)))
		if u.Reason != "" {
			fmt.Fprintf(out, ": %s", firstLine(u.Reason))
		}
		fmt.Fprintln(out)
	}
	if st.Upgrading {
		fmt.Fprintln(out, "upgrade: another one is under way")
	}
	for _, g := range st.Groups {
		fmt.Fprintln(out)
		printGroup(out, g, now)
	}
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
		what := "is empty"
		if slices.ContainsFunc(g.Workers, func(o workerset.Worker) bool { return o.Slot == w.Slot && o.Accepts() }) {
			what = "gets no other worker"
		}
		fmt.Fprintf(out, "  %s/%d %s after %d tries", g.Name, w.Slot, what, w.Failures)
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
		what, why := "failed", d.Cause+": "
		if d.Cause == "recycle" {
			what, why = "was recycled", ""
		}
		fmt.Fprintf(out, "  %s ago %s/%d %s, pid %d of generation %d: %s%s\n", span(now.Sub(d.Time)), g.Name, d.Slot, what, d.Pid, d.Generation, why, firstLine(d.Reason))
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

// upgradeCommand is "handover upgrade".
func upgradeCommand() *cobra.Command {
	var t target
	cmd := &cobra.Command{
		Use:   "upgrade [flags]",
		Short: "Upgrade a service to the program's current binary, and say whether it worked",
		Long: `Upgrade a service to the program's current binary, and wait for the result.

Exit codes:
  0  all workers of the new generation serve, and no older one accepts
  1  nothing has changed; the reason and the new program's last output are shown
  4  the new generation decides, but its workers have not replaced all older ones,
     or the result is not known: 'handover status' tells`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			last, err := client.Upgrade(ctx, func(ev control.Event) {
				fmt.Printf("%s  %s\n", ev.Time.Format("15:04:05.000"), ev.Text)
			})
			switch {
			case errors.Is(err, control.ErrNoService), errors.Is(err, syscall.EACCES):
				return &exit{1, err}
			case err != nil:
				return &exit{4, err}
			}
			return result(last)
		},
	}
	t.flags(cmd)
	return cmd
}

func result(last control.Event) error {
	switch last.Result {
	case control.Done:
		fmt.Printf("%s  generation %d serves\n", last.Time.Format("15:04:05.000"), last.Generation)
		return nil
	case control.Failed:
		if last.Output != "" {
			return &exit{1, fmt.Errorf("%s; its last output:\n%s", last.Reason, last.Output)}
		}
		return &exit{1, errors.New(last.Reason)}
	default:
		return &exit{4, fmt.Errorf("the new generation has not taken over alone: %s", last.Reason)}
	}
}
