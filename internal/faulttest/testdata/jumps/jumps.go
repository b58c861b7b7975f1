// The command of TestMachine/clock-jumps has these files, too: in each of its processes the time
// of day jumps. What lasts is measured by another clock, which goes on as it does.
package main

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
	_ "unsafe" // for go:linkname
)

// clockGettime is by what the runtime reads the clocks, the kernel's function (vdso(7)).
//
//go:linkname clockGettime runtime.vdsoClockgettimeSym
var clockGettime uintptr

// jumped is what jumping adds to the time of day, in seconds.
var jumped int64

// jumping is the address of a function that can be called in its place.
func jumping() uintptr

func init() {
	jump()
	clockGettime = jumping()
	go func() {
		for range time.Tick(50 * time.Millisecond) {
			jump()
		}
	}()
}

// jump sets the clock: to the right time, or to one that is off by a second, an hour, or ten
// years.
func jump() {
	offs := []int64{0, 1, -1, 3600, -3600, 10 * 365 * 86400, -10 * 365 * 86400}
	atomic.StoreInt64(&jumped, offs[rand.IntN(len(offs))])
}
