package cgroup

import (
	"os"
	"strconv"
	"strings"
)

// OOMKills is how many processes of this process's control group the kernel has killed
// for want of memory, as long as there is the group: "oom_kill" of memory.events
// (cgroup v2) or memory.oom_control (v1). The count is raised before the process gets
// its signal. ok is false where there is no such file: outside of any group, or without
// /proc and /sys.
func OOMKills() (n int, ok bool) {
	groups, mounts := read()
	for _, file := range memory.places(groups, mounts) {
		if b, err := os.ReadFile(file); err == nil {
			if n, ok := count(string(b)); ok {
				return n, true
			}
		}
	}
	return 0, false
}

// memory is where the count is.
var memory = sought{v2: "memory.events", controller: "memory", v1: "memory.oom_control"}

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
