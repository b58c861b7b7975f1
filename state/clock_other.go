//go:build !linux

package state

import "time"

var started = time.Now()

// now is the time since this process began, in ns: there are no others.
func now() int64 { return int64(time.Since(started)) }
