package cgroup

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
)

// processes is where systemd's own hierarchy says who is in a group.
var processes = sought{v2: "cgroup.procs", controller: "name=systemd", v1: "cgroup.procs"}

// Members are the pids of the processes in the group in which systemd has put this process,
// without it. Processes in groups below are not among them.
func Members() (pids []int, err error) {
	groups, mounts := read()
	self := strconv.Itoa(os.Getpid())
	for _, file := range processes.places(groups, mounts) {
		b, err := os.ReadFile(file)
		list := strings.Fields(string(b))
		if err != nil || !slices.Contains(list, self) {
			continue // another group's
		}
		for _, v := range list {
			if pid, err := strconv.Atoi(v); err == nil && v != self && pid > 0 { // 0: in a namespace above
				pids = append(pids, pid)
			}
		}
		return pids, nil
	}
	return nil, fmt.Errorf("the control group of this process: %w: is /sys/fs/cgroup mounted?", errNone)
}

var errNone = errors.New("no file says who is in it")
