//go:build unix

package main

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/image"
)

// versionCommand is "handover version".
func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Say which version this is, and of which sources",
		Long: `Say which version this is, which Go has built it, and of which sources: a revision, its
time, and "modified" where the sources were changed after it. The build's id is the one that
status shows of a service's builds, and go tool buildid of a file.`,
		Example: `  handover version`,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			info, _ := debug.ReadBuildInfo()
			path, _ := os.Executable()
			build, _ := image.Read(path) // or there is nothing to say of it
			fmt.Print(versionText(info, build.ID))
			return nil
		},
	}
}

// versionText is what there is to say of a build; info may be nil, the id may be "".
func versionText(info *debug.BuildInfo, id string) string {
	version, of := "unknown", settings(info)
	if info != nil {
		version = info.Main.Version
	}
	var b strings.Builder
	fmt.Fprintf(&b, "handover %s\nbuilt by %s for %s/%s\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH)
	if rev := of["vcs.revision"]; rev != "" {
		fmt.Fprintf(&b, "of %s %s %s", of["vcs"], rev, of["vcs.time"])
		if of["vcs.modified"] == "true" {
			b.WriteString(", modified")
		}
		b.WriteByte('\n')
	}
	if id != "" {
		fmt.Fprintf(&b, "build %s\n", id)
	}
	return b.String()
}

// settings are those of a build, which may be nil.
func settings(info *debug.BuildInfo) map[string]string {
	m := map[string]string{}
	if info != nil {
		for _, s := range info.Settings {
			m[s.Key] = s.Value
		}
	}
	return m
}
