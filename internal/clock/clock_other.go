//go:build !linux

package clock

import "time"

// monotonic is the time of day here, of which each process is sure as long as it lives.
func monotonic() int64 { return time.Now().UnixNano() }

// SinceBoot is since 1970 here, by the clock as it was set when this process began.
func SinceBoot() time.Duration { return time.Duration(Up(time.Now())) }
