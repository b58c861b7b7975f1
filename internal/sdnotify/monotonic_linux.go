package sdnotify

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// monotonic is the time by the clock that a supervisor compares with its own.
func monotonic() []string {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts) != nil {
		return nil
	}
	return []string{fmt.Sprintf("MONOTONIC_USEC=%d", ts.Nano()/1000)}
}
