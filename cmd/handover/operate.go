//go:build unix

package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/workerset"
)

// target says which service is meant.
type target struct{ name, path string }

func (t *target) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&t.name, "name", "", "name of the service (default: $HANDOVER_NAME, or the only one that runs)")
	cmd.Flags().StringVar(&t.path, "control", "", "`PATH` of its control socket (default: $HANDOVER_CONTROL)")
}

func (t *target) client() (*control.Client, error) {
	name, path := t.name, t.path
	if path != "" && name != "" {
		return nil, &exit{2, errors.New("--name and --control: one of them says which service is meant")}
	}
	if path == "" && name == "" { // what the service was told, too
		name, path = os.Getenv("HANDOVER_NAME"), os.Getenv("HANDOVER_CONTROL")
	}
	switch {
	case path == "none":
		return nil, &exit{1, errors.New("HANDOVER_CONTROL=none: the service has no control socket")}
	case path != "":
		return control.NewClient(path), nil
	case name != "":
		return control.NewClient(control.Locate(name)), nil
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
	var asJSON, ready, again bool
	cmd := &cobra.Command{
		Use:   "status [flags]",
		Short: "Say how a service and its workers are",
		Long: `Say how a service and its workers are, those first that serve now, and then those of
older generations that still hold clients, with the connections that keep them, as far as
their programs can say. CPU is what a worker has used since its start, and with --watch since
it was shown last; MEM is what it has in memory (RSS; --json says PSS, too).

With --ready, only whether clients should come: exit code 0, or 1 and the reason if no
worker accepts, the service is about to stop, or nobody answers. That is what Docker's
HEALTHCHECK and Kubernetes' probes by exec want.`,
		Example: `  handover status
  handover status --name shop --json
  handover status --watch
  handover status --ready`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := t.client()
			if err != nil {
				return err
			}
			ctx, cancel := interruptible()
			defer cancel()
			if again {
				return watch(ctx, client)
			}
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
			v := view{style: styleOf(os.Stdout), st: st, now: time.Now()}
			fmt.Println(strings.Join(v.lines(), "\n"))
			return nil
		},
	}
	t.flags(cmd)
	cmd.Flags().BoolVar(&asJSON, "json", false, "as JSON")
	cmd.Flags().BoolVar(&ready, "ready", false, "only whether clients should come: exit code 0 or 1")
	cmd.Flags().BoolVarP(&again, "watch", "w", false, "again and again, every second, until q or Ctrl-C")
	cmd.MarkFlagsMutuallyExclusive("json", "ready", "watch")
	return cmd
}
