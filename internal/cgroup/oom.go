// Package cgroup reads what the kernel says of this process's control group.
package cgroup

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// OOMKills is how many processes of this process's control group the kernel has killed
// for want of memory, as long as there is the group: "oom_kill" of memory.events
// (cgroup v2) or memory.oom_control (v1). The count is raised before the process gets
// its signal. ok is false where there is no such file: outside of any group, or without
// /proc and /sys.
func OOMKills() (n int, ok bool) {
	groups, _ := os.ReadFile("/proc/self/cgroup")
	mounts, _ := os.ReadFile("/proc/self/mountinfo")
	for _, file := range files(string(groups), string(mounts)) {
		if b, err := os.ReadFile(file); err == nil {
			if n, ok := count(string(b)); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// files are the places where the count may be, the likeliest first (cgroups(7),
// proc_pid_mountinfo(5)): in a container a group's path may be that of the host, which is
// not there.
func files(groups, mounts string) (list []string) {
	paths := map[string]string{} // by type of the file system
	for line := range strings.Lines(groups) {
		f := strings.SplitN(strings.TrimSpace(line), ":", 3)
		switch {
		case len(f) != 3:
		case f[0] == "0" && f[1] == "":
			paths["cgroup2"] = f[2]
		case slices.Contains(strings.Split(f[1], ","), "memory"):
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
		name := "memory.events"
		if what[0] == "cgroup" {
			name = "memory.oom_control"
			ok = ok && slices.Contains(strings.Split(what[2], ","), "memory")
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

// count reads the line "oom_kill 3".
func count(text string) (n int, ok bool) {
	for line := range strings.Lines(text) {
		if name, value, _ := strings.Cut(strings.TrimSpace(line), " "); name == "oom_kill" {
			n, err := strconv.Atoi(value)
			return n, err == nil
		}
	}
	return 0, false
}
