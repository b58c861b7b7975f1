//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
)

// exitCodes is what the verbs that wait have in common.
const exitCodes = `
Exit codes:
  0  done
  1  failed, and nothing has changed
  2  a bad command line
  4  stopped half way, or not known: it may go on; 'handover status' tells`

// act is a verb that is asked for and waited for.
type act struct {
	target
	timeout time.Duration
}

func (a *act) flags(cmd *cobra.Command) {
	a.target.flags(cmd)
	cmd.Flags().DurationVar(&a.timeout, "timeout", 0, "wait no longer than that: then exit with 4, and it goes on (default: no limit)")
}

// wait asks, shows what happens, and returns how it went.
func (a *act) wait(w control.Wish, done string) error {
	if err := a.check(w); err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := a.patience()
	defer cancel()
	last, err := a.ask(ctx, client, w)
	if err != nil {
		return err
	}
	show(last.Time, done)
	return nil
}

// check says what can't be meant.
func (a *act) check(w control.Wish) error {
	if err := a.checkTimeout(); err != nil {
		return err
	}
	if err := w.Validate(); err != nil {
		return &exit{2, err}
	}
	return nil
}

func (a *act) checkTimeout() error {
	if a.timeout < 0 {
		return &exit{2, fmt.Errorf("--timeout %v: must not be negative", a.timeout)}
	}
	return nil
}

// patience ends with the first INT or TERM, or with the time that there is.
func (a *act) patience() (context.Context, context.CancelFunc) {
	ctx, cancel := interruptible()
	if a.timeout == 0 {
		return ctx, cancel
	}
	ctx, cancelTime := context.WithTimeoutCause(ctx, a.timeout, fmt.Errorf("not done after %v", a.timeout))
	return ctx, func() { cancelTime(); cancel() }
}

// ask asks, shows what happens, and returns the last event, if that is a good one.
func (a *act) ask(ctx context.Context, client *control.Client, w control.Wish) (control.Event, error) {
	last, err := client.Act(ctx, w, func(ev control.Event) { show(ev.Time, ev.Text) })
	switch {
	case err != nil:
		return last, failed(ctx, err)
	case last.Result == control.Done:
		return last, nil
	case last.Result == control.Failed:
		return last, &exit{1, errors.New(last.Reason)}
	}
	return last, &exit{4, fmt.Errorf("%s has stopped half way: %s", w.Verb, last.Reason)}
}

func show(at time.Time, text string) {
	fmt.Printf("%s  %s\n", at.Format("15:04:05.000"), text)
}

// failed says whether something may have been done although there is no result.
func failed(ctx context.Context, err error) error {
	switch {
	case errors.Is(err, control.ErrNoService), errors.Is(err, control.ErrRefused), errors.Is(err, syscall.EACCES):
		return &exit{1, err}
	case ctx.Err() != nil && context.Cause(ctx) != ctx.Err():
		return &exit{4, fmt.Errorf("%w: it goes on, 'handover status' tells what has become of it", context.Cause(ctx))}
	}
	return &exit{4, err}
}

// restartCommand is "handover restart".
func restartCommand() *cobra.Command {
	var a act
	cmd := &cobra.Command{
		Use:   "restart [WORKER]",
		Short: "Replace workers by new ones of the same version",
		Long: `Replace all workers, or one, by new ones of the same version, and wait until the new
ones serve and no old one accepts. A replacement that can't start stops it: the workers
that were to be replaced go on.

WORKER is GROUP/SLOT, such as web/1, or its pid.
` + exitCodes,
		Example: `  handover restart
  handover restart web/1
  handover restart --name shop --timeout 1m`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := control.Wish{Verb: control.Restart}
			if len(args) > 0 {
				if w.Worker = args[0]; w.Worker == "" {
					return &exit{2, errors.New(`restart "": which worker is missing`)}
				}
			}
			return a.wait(w, "restarted")
		},
	}
	a.flags(cmd)
	return cmd
}

// scaleCommand is "handover scale".
func scaleCommand() *cobra.Command {
	var a act
	cmd := &cobra.Command{
		Use:   "scale [GROUP] N",
		Short: "Set the number of a group's workers",
		Long: `Set the number of a group's workers, and wait until so many serve and no other
accepts. Without GROUP it is the main one, the first that is no agent. The number goes
on being right over restarts and upgrades, until the configuration says another one.
` + exitCodes,
		Example: `  handover scale 4
  handover scale web 2`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			w := control.Wish{Verb: control.Scale}
			number := args[len(args)-1]
			if len(args) > 1 {
				w.Group = args[0]
			}
			var err error
			if w.Count, err = strconv.Atoi(number); err != nil {
				return &exit{2, fmt.Errorf("scale to %q: a number of workers is needed", number)}
			}
			return a.wait(w, fmt.Sprintf("scaled to %d", w.Count))
		},
	}
	a.flags(cmd)
	return cmd
}

// drainCommand is "handover drain".
func drainCommand() *cobra.Command {
	var a act
	cmd := &cobra.Command{
		Use:   "drain WORKER",
		Short: "Let one worker finish what it has and go, when another serves",
		Long: `Replace one worker, and wait until it has ended: another serves first, then the old
one accepts no more, finishes what it has, and exits.

WORKER is GROUP/SLOT, such as web/1, or its pid. One that drains already is waited for.
` + exitCodes,
		Example: `  handover drain web/1
  handover drain web/1 --timeout 30s`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.wait(control.Wish{Verb: control.Drain, Worker: args[0]}, "it has ended")
		},
	}
	a.flags(cmd)
	return cmd
}

// killCommand is "handover kill".
func killCommand() *cobra.Command {
	var a act
	cmd := &cobra.Command{
		Use:   "kill WORKER",
		Short: "End one worker at once, by SIGKILL, and replace it",
		Long: `End one worker at once, by SIGKILL, and wait until another has its place. What it serves
is cut: 'handover drain' is what clients do not notice.

WORKER is GROUP/SLOT, such as web/1, or its pid. Where more than one has that place, since
an old one drains there, only the pid says who is meant.
` + exitCodes,
		Example: `  handover kill web/1`,
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.wait(control.Wish{Verb: control.Kill, Worker: args[0]}, "killed and replaced")
		},
	}
	a.flags(cmd)
	return cmd
}

// reopenCommand is "handover reopen".
func reopenCommand() *cobra.Command {
	var a act
	cmd := &cobra.Command{
		Use:   "reopen",
		Short: "Have the workers open their log files anew",
		Long: `Ask all workers to open their log files anew, as after those were rotated: those that
use the library by SIGUSR1, other programs by their --reopen-signal, if they have one.
That they were asked is all that is known.
` + exitCodes,
		Example: `  handover reopen`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.wait(control.Wish{Verb: control.Reopen}, "the workers were asked to open their logs anew")
		},
	}
	a.flags(cmd)
	return cmd
}

// stopCommand is "handover stop".
func stopCommand() *cobra.Command {
	var a act
	var now bool
	cmd := &cobra.Command{
		Use:   "stop",
		Short: "Drain all workers, stop the service, and wait until it is gone",
		Long: `Drain all workers, stop the service, and wait until it is gone: also the process that
kept its pid, so that another one may be started at once.

Exit codes:
  0  gone, and all workers have ended by themselves (or --now was asked for)
  1  there is no such service, or it is not yours to stop
  2  a bad command line
  4  gone, but some had to be killed; or it is not known: it may go on stopping`,
		Example: `  handover stop
  handover stop --now`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.stop(control.Wish{Verb: control.Stop, Now: now})
		},
	}
	a.flags(cmd)
	cmd.Flags().BoolVar(&now, "now", false, "kill the workers: what they serve is cut")
	return cmd
}

// stop asks the service to end, and waits for its processes.
func (a *act) stop(w control.Wish) error {
	if err := a.check(w); err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	ctx, cancel := a.patience()
	defer cancel()
	st, _, err := client.Status(ctx)
	if err != nil {
		return &exit{1, err}
	}
	procs := processes(st.Service, st.Pid, st.Anchor)
	defer procs.close()
	last, err := a.ask(ctx, client, w)
	if err != nil {
		return err
	}
	if !procs.ended(ctx) {
		return failed(ctx, ctx.Err())
	}
	show(time.Now(), "stopped: "+last.Text)
	return nil
}
