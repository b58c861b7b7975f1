//go:build !linux

package workerset

import "time"

var began = time.Now()

// sinceBoot is since this process's start: workers have no other parent here.
func sinceBoot() time.Duration { return time.Since(began) }
