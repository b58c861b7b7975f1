package cgroup

import (
	"path/filepath"
	"testing"
)

// FuzzPlaces: whatever /proc says, a place is a path of the file that is looked for.
func FuzzPlaces(f *testing.F) {
	f.Add("0::/system.slice/shop.service\n", "29 22 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n")
	f.Add("4:cpu,memory:/a\n1:name=systemd:/b\n", "31 22 0:27 /a /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n")
	f.Add("0::../..\n:::\n", "1 2 3 /x/ y - cgroup2 - -\n")
	f.Fuzz(func(t *testing.T, groups, mounts string) {
		for _, s := range []sought{memory, processes} {
			for _, path := range s.places(groups, mounts) {
				if name := filepath.Base(path); name != s.v1 && name != s.v2 {
					t.Errorf("%q", path)
				}
			}
		}
		_, _ = count(groups)
	})
}
