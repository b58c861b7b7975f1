//go:build !linux

package cputime

import "time"

// Of needs Linux.
func Of(int) (time.Duration, error) { return 0, ErrUnsupported }
