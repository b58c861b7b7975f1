//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/logs"
)

// logsCommand is "handover logs".
func logsCommand() *cobra.Command {
	var t target
	var asJSON, follow bool
	var n int
	cmd := &cobra.Command{
		Use:   "logs [flags] [WORKER]",
		Short: "Show what workers have printed lately, also dead ones",
		Long: `Show what workers have printed lately, also those that are dead: up to 64 KiB of each,
of the last 32 that have ended, and over upgrades.

It is kept of all programs, unless they run with --raw-output, and of programs that bring
their own parent where their configuration asks for it (KeepOutput).

WORKER is GROUP, GROUP/SLOT such as web/1, GROUP/SLOT/ID/GENERATION as in a worker's
HANDOVER_WORKER, or a pid.`,
		Example: `  handover logs
  handover logs web/1 -n 20
  handover logs -f`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			which := strings.Join(args, "")
			if _, err := control.ParseSelector(which); err != nil {
				return &exit{2, err}
			}
			if n < 0 {
				return &exit{2, fmt.Errorf("-n %d: must not be negative", n)}
			}
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			l, raw, err := client.Logs(ctx, which, n)
			if err != nil {
				return &exit{1, err}
			}
			if asJSON {
				_, err = os.Stdout.Write(raw)
				return err
			}
			if len(l.Unkept) > 0 {
				fmt.Fprintln(os.Stderr, unkept(l.Unkept))
			} else if len(l.Lines) == 0 && which != "" && !follow {
				return &exit{1, fmt.Errorf("nothing is remembered that a worker %s has printed", which)}
			}
			s := styleOf(os.Stdout)
			for _, line := range l.Lines {
				fmt.Println(logLine(line, s))
			}
			if !follow {
				return nil
			}
			return followLogs(ctx, client, which, l.Last, s)
		},
	}
	t.flags(cmd)
	cmd.Flags().IntVarP(&n, "lines", "n", 100, "how many lines at most, the last ones")
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on with what is printed from now on, until Ctrl-C")
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.MarkFlagsMutuallyExclusive("json", "follow")
	return cmd
}

// followLogs shows lines until it is interrupted.
func followLogs(ctx context.Context, client *control.Client, which string, after int, s style) error {
	err := client.Follow(ctx, which, after, func(f control.Followed) {
		if f.Missed > 0 {
			fmt.Println(s.paint(yellow, fmt.Sprintf("… %d lines are missing here, which came faster than they were read", f.Missed)))
			return
		}
		fmt.Println(logLine(f.Line, s))
	})
	if err == nil || errors.Is(err, context.Canceled) {
		return nil
	}
	return &exit{1, err}
}

// logLine is a line as it is shown.
func logLine(l logs.Line, s style) string {
	bar := "|"
	if l.Stream == "stderr" {
		bar = s.paint(red, bar)
	}
	return fmt.Sprintf("%s %s %s %s", s.paint(dim, l.Time.Local().Format("15:04:05.000")),
		s.paint(cyan, fmt.Sprintf("%s/%d %d", l.Group, l.Slot, l.Pid)), bar, harmless(l.Text))
}

// unkept says of whom nothing is kept, and why.
func unkept(list []logs.Worker) string {
	var names []string
	for _, w := range list {
		names = append(names, fmt.Sprintf("%s/%d (pid %d)", w.Group, w.Slot, w.Pid))
	}
	return fmt.Sprintf("handover: nothing is kept of what %s print%s: it goes straight to the service's own output (--raw-output; or KeepOutput is not set)",
		strings.Join(names, ", "), map[bool]string{true: "s", false: ""}[len(list) == 1])
}
