package launch

import (
	"math"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

// OwnDescriptors makes all descriptors that are open now, but for the standard ones, close on
// exec: what this process starts gets those that it is given (Spec.Fds), and none that
// whoever has started this one had left open.
func OwnDescriptors() {
	if unix.CloseRange(3, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	list, _ := os.ReadDir("/proc/self/fd") // before Linux 5.11
	for _, e := range list {
		if fd, err := strconv.Atoi(e.Name()); err == nil && fd > 2 {
			unix.CloseOnExec(fd)
		}
	}
}
