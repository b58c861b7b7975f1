package main

import (
	"context"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// pidfds are processes whose end is waited for.
type pidfds []int

// processes are those of these pids that are a service's. In another namespace the pids may
// be anybody's.
func processes(service string, pids ...int) (fds pidfds) {
	for _, pid := range pids {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue
		}
		title, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // of the same process: the pid was not free meanwhile
		if strings.HasPrefix(string(title), service+": ") {
			fds = append(fds, fd)
		} else {
			unix.Close(fd)
		}
	}
	return fds
}

// ended waits until all have, and returns false if ctx ends first.
func (p pidfds) ended(ctx context.Context) bool {
	for _, fd := range p {
		for {
			poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
			if n, _ := unix.Poll(poll, int((20 * time.Millisecond).Milliseconds())); n > 0 {
				break
			}
			if ctx.Err() != nil {
				return false
			}
		}
	}
	return true
}

func (p pidfds) close() {
	for _, fd := range p {
		unix.Close(fd)
	}
}
