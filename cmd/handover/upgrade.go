//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
)

const waitCodes = `Exit codes:
  0  all workers of the new generation serve, and no older one accepts; and it has proven
     itself (--wait probation)
  1  nothing has changed; the reason and the new program's last output are shown
  3  the new generation did decide, but was gone back from: the one before serves
  4  the new generation decides, but its workers have not replaced all older ones, or have
     failed without a way back; or the result is not known: 'handover status' tells`

// upgradeCommand is "handover upgrade".
func upgradeCommand() *cobra.Command {
	w := watching{ask: (*control.Client).Upgrade}
	return w.command(&cobra.Command{
		Use:   "upgrade [flags]",
		Short: "Upgrade a service to the program's current binary, and say whether it worked",
		Long: `Upgrade a service to the program's current binary, and wait for the result.

When the new generation serves it is on probation (run --probation): if it fails then, the
parent goes back to the generation before by itself. With --wait serve that is not waited
for, as a unit's ExecReload= should not.

` + waitCodes,
		Example: `  handover upgrade
  handover upgrade --name shop --wait serve
  handover upgrade --timeout 1m`,
	})
}

// rollbackCommand is "handover rollback".
func rollbackCommand() *cobra.Command {
	w := watching{ask: (*control.Client).Rollback}
	return w.command(&cobra.Command{
		Use:   "rollback [flags]",
		Short: "Go back to the generation before, whatever has become of its binary on disk",
		Long: `Go back to the generation before, and wait for the result.

The parent has kept what it needs for that: a copy of its own binary, which programs it has
found where, and its configuration file. It is the last generation that has proven itself
in its probation. After a rollback there is none to go back to; an upgrade leads to the
binary on disk again.

` + waitCodes,
		Example: `  handover rollback
  handover rollback --name shop`,
	})
}

// watching is a command that follows an upgrade, or the way back.
type watching struct {
	act
	ask   func(*control.Client, context.Context, control.Wait, func(control.Event)) (control.Event, error)
	until string // a control.Wait
}

func (w *watching) command(cmd *cobra.Command) *cobra.Command {
	cmd.Args = cobra.NoArgs
	cmd.RunE = func(*cobra.Command, []string) error { return w.run() }
	w.flags(cmd)
	cmd.Flags().StringVar(&w.until, "wait", string(control.WaitProbation), "how long: `serve|probation`")
	return cmd
}

func (w *watching) run() error {
	wait := control.Wait(w.until)
	if wait != control.WaitServe && wait != control.WaitProbation {
		return &exit{2, fmt.Errorf("--wait %q: %s or %s", w.until, control.WaitServe, control.WaitProbation)}
	}
	if err := w.checkTimeout(); err != nil {
		return err
	}
	client, err := w.client()
	if err != nil {
		return err
	}
	ctx, cancel := w.patience()
	defer cancel()
	last, err := w.ask(client, ctx, wait, func(ev control.Event) { show(ev.Time, ev.Text) })
	if err != nil {
		return failed(ctx, err)
	}
	return result(last)
}

func result(last control.Event) error {
	switch last.Result {
	case control.Done:
		show(last.Time, fmt.Sprintf("generation %d serves", last.Generation))
		return nil
	case control.Failed:
		if last.Output != "" {
			return &exit{1, fmt.Errorf("%s; its last output:\n%s", last.Reason, last.Output)}
		}
		return &exit{1, errors.New(last.Reason)}
	case control.RolledBack:
		return &exit{3, fmt.Errorf("gone back to the generation before: %s", last.Reason)}
	default:
		return &exit{4, fmt.Errorf("the new generation has not taken over: %s", last.Reason)}
	}
}
