package metrics

import (
	"runtime/debug"
	"sync"
)

// build is what is known of this process's program.
type build struct{ path, version, revision, goVersion string }

var readBuild = sync.OnceValue(func() build {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return build{}
	}
	b := build{path: info.Path, version: info.Main.Version, goVersion: info.GoVersion}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			b.revision = s.Value
		}
	}
	return b
})
