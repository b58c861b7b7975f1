package workerset

import (
	"math"
	"time"

	"github.com/handover-go/handover/internal/clock"
)

// firstNumber is where this parent's messages are counted from: no worker is to see a number
// twice, also when the parent that has used it has died and nobody knows how many it has. So
// they are tenths of microseconds of a clock that never goes back, more than there are
// messages; exact in JSON (2^53) for 28 years. Where an int has 32 bits there is less room, and
// numbers may meet after 2^16 messages, or nine hours.
func firstNumber() int {
	up := clock.SinceBoot()
	if math.MaxInt == math.MaxInt32 {
		return int(up/time.Second) % (1 << 15) << 16
	}
	return int(up / 100)
}
