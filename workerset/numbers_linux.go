package workerset

import (
	"time"

	"golang.org/x/sys/unix"
)

// sinceBoot counts also while the machine sleeps (clock_gettime(2)).
func sinceBoot() time.Duration {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts) != nil {
		return 0 // not on Linux since 2.6.39
	}
	return time.Duration(ts.Nano())
}
