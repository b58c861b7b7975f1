//go:build unix

package main

import (
	"fmt"
	"os"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand is "handover man", for those who make packages.
func manCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "man DIR",
		Short:   "Write the manual pages into a directory",
		Long:    `Write the manual pages, handover.1 and one for each command, into a directory that is there.`,
		Example: `  handover man share/man/man1`,
		Args:    cobra.ExactArgs(1),
		Hidden:  true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if st, err := os.Stat(args[0]); err != nil {
				return &exit{1, err}
			} else if !st.IsDir() {
				return &exit{1, fmt.Errorf("%s is no directory", args[0])}
			}
			root := cmd.Root()
			root.DisableAutoGenTag = true
			header := doc.GenManHeader{Section: "1", Source: "handover", Manual: "Restarts that no client notices"}
			info, _ := debug.ReadBuildInfo()
			if at, err := time.Parse(time.RFC3339, settings(info)["vcs.time"]); err == nil {
				header.Date = &at // so that the same sources make the same pages
			}
			if err := doc.GenManTree(root, &header, args[0]); err != nil {
				return &exit{1, err}
			}
			return nil
		},
	}
}
