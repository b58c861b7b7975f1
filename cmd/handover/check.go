//go:build unix

package main

import (
	"os"

	"github.com/spf13/cobra"
)

const checkLong = `Check what 'handover run' with the same flags, file and environment would do, without
doing it: that the configuration is right, that the program can be found and executed, and
that users and directories exist. No socket is opened, nothing is started or changed.

What is in effect is printed as a configuration file, with all defaults: handover run -f of
it does the same.

Exit codes: 0 it is right, 2 it is not; all reasons are told, with their lines.`

// checkCommand is "handover check".
func checkCommand() *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "check [flags of run] [--] [program args…]",
		Short: "Check a configuration, and show what is in effect",
		Long:  checkLong,
		Example: `  handover check -f /etc/shop/handover.toml
  handover check -f handover.toml --workers 4 >effective.toml
  handover check --listen tcp://:8080 -- node server.js`,
		RunE: func(cmd *cobra.Command, args []string) error {
			s, err := flags.settings(args)
			if err != nil {
				return &exit{2, err}
			}
			if err := s.Check(); err != nil {
				return &exit{2, s.Explain(err)}
			}
			_, err = os.Stdout.Write(s.TOML())
			if err != nil {
				return &exit{1, err}
			}
			return nil
		},
	}
	flags.add(cmd.Flags())
	return cmd
}
