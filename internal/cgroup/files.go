// Package cgroup reads what the kernel says of this process's control group.
package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sought is a file of this process's group: its name in version 2, and in that hierarchy of
// version 1 which has a controller.
type sought struct{ v2, controller, v1 string }

// read returns what the kernel says of this process's groups, and of what is mounted.
func read() (groups, mounts string) {
	g, _ := os.ReadFile("/proc/self/cgroup")
	m, _ := os.ReadFile("/proc/self/mountinfo")
	return string(g), string(m)
}

// places are where the file may be, the likeliest first (cgroups(7),
// proc_pid_mountinfo(5)): in a container a group's path may be that of the host, which is
// not there.
func (s sought) places(groups, mounts string) (list []string) {
	paths := map[string]string{} // by type of the file system
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0" && f[1] == "":
			paths["cgroup2"] = f[2]
		case slices.Contains(strings.Split(f[1], ","), s.controller):
			paths["cgroup"] = f[2]
		}
	}
	for line := range strings.Lines(mounts) {
		before, after, _ := strings.Cut(line, " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if len(where) < 5 || len(what) < 3 {
			continue
		}
		root, dir := where[3], where[4]
		path, ok := paths[what[0]]
		name := s.v2
		if what[0] == "cgroup" {
			name = s.v1
			ok = ok && slices.Contains(strings.Split(what[2], ","), s.controller)
		}
		if !ok {
			continue
		}
		if rest, below := strings.CutPrefix(path, strings.TrimSuffix(root, "/")); below {
			list = append(list, filepath.Join(dir, rest, name))
		}
		list = append(list, filepath.Join(dir, name))
	}
	return slices.Compact(list)
}
