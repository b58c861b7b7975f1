//go:build unix

package main

import (
	"runtime"
	"runtime/debug"
	"testing"
)

func TestVersionText(t *testing.T) {
	by := "\nbuilt by " + runtime.Version() + " for " + runtime.GOOS + "/" + runtime.GOARCH + "\n"
	vcs := []debug.BuildSetting{{Key: "vcs", Value: "git"}, {Key: "vcs.revision", Value: "4a7b"}, {Key: "vcs.time", Value: "2026-05-06T07:08:09Z"}}
	of := func(version string, settings ...debug.BuildSetting) *debug.BuildInfo {
		return &debug.BuildInfo{Main: debug.Module{Version: version}, Settings: settings}
	}
	for _, c := range []struct {
		info *debug.BuildInfo
		id   string
		want string
	}{
		{nil, "", "handover unknown" + by},
		{of("(devel)"), "aB/cd", "handover (devel)" + by + "build aB/cd\n"},
		{of("v1.2.3", vcs...), "", "handover v1.2.3" + by + "of git 4a7b 2026-05-06T07:08:09Z\n"},
		{of("(devel)", append(vcs, debug.BuildSetting{Key: "vcs.modified", Value: "true"})...), "", "handover (devel)" + by + "of git 4a7b 2026-05-06T07:08:09Z, modified\n"},
		{of("(devel)", append(vcs, debug.BuildSetting{Key: "vcs.modified", Value: "false"})...), "", "handover (devel)" + by + "of git 4a7b 2026-05-06T07:08:09Z\n"},
	} {
		if got := versionText(c.info, c.id); got != c.want {
			t.Errorf(" got %q\nwant %q", got, c.want)
		}
	}
}
