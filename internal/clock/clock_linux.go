package clock

import (
	"time"

	"golang.org/x/sys/unix"
)

// monotonic is the clock by which package time measures. It stands still while the machine
// sleeps, as that does: a deadline is as far away after it as before.
func monotonic() int64 { return int64(read(unix.CLOCK_MONOTONIC)) }

// SinceBoot is by a clock that all processes of this machine share and that nobody sets, too. It
// goes on while the machine sleeps: for what ages meanwhile.
func SinceBoot() time.Duration { return read(unix.CLOCK_BOOTTIME) }

func read(clock int32) time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(clock, &ts) // of these clocks it does not fail
	return time.Duration(ts.Nano())
}
