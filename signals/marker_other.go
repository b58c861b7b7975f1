//go:build !linux

package signals

import (
	"syscall"
	"time"
)

// marker is none: without real-time signals there is no order to rely on, and no
// upgrade to lose a signal in.
const marker = syscall.Signal(0)

func settled(time.Time) {}
