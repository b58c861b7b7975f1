//go:build unix

// Command handover runs a server as a parent and workers that restart without
// any client noticing.
package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"
)

// exit carries an exit code through cobra.
type exit struct {
	code int
	err  error
}

func (e *exit) Error() string { return e.err.Error() }

func main() { os.Exit(execute()) }

// execute runs the command line and returns the exit code: 0 done, 1 failed and
// nothing changed, 2 a bad command line or configuration, 3 committed and gone back from,
// 4 stopped half way or unknown.
func execute() int {
	err := newRoot().Execute()
	var e *exit
	switch {
	case err == nil:
		return 0
	case errors.As(err, &e):
		if e.err != nil {
			fmt.Fprintf(os.Stderr, "handover: %v\n", e.err)
		}
		return e.code
	}
	fmt.Fprintf(os.Stderr, "handover: %v\nRun 'handover --help' or 'handover run --help' for usage.\n", err)
	return 2
}

// newRoot is the command line.
func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:           "handover",
		Short:         "Restarts that no client notices",
		SilenceErrors: true,
		SilenceUsage:  true,
	}
	root.AddCommand(runCommand(), checkCommand(), statusCommand(), upgradeCommand(), rollbackCommand(), unitCommand(), draintestCommand())
	root.AddCommand(restartCommand(), scaleCommand(), drainCommand(), killCommand(), reopenCommand(), stopCommand(),
		historyCommand(), logsCommand(), versionCommand(), sweepCommand())
	return root
}
