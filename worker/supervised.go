package worker

import (
	"time"

	"github.com/handover-go/handover/internal/sdnotify"
)

// more is how long a supervisor is asked to wait for a drain each time; it is asked four
// times as often.
const more = 10 * time.Second

// supervised tells the supervisor of a process without a parent, if there is one, that
// it serves, lives and stops, until quit (sd_notify(3)). A worker of a parent is that
// one's to speak for.
func (w *Worker) supervised(watchdog time.Duration) {
	tell := func(notes ...string) {
		if err := sdnotify.Send(notes...); err != nil {
			w.log.Warn("the supervisor could not be told how this process is", "error", err)
		}
	}
	var signs, extend <-chan time.Time
	serves, stops := w.accept, w.ending
	for {
		select {
		case <-serves:
			serves = nil
			tell("READY=1")
			if watchdog > 0 {
				t := time.NewTicker(watchdog / 4)
				defer t.Stop()
				signs = t.C
			}
		case <-stops:
			serves, stops = nil, nil
			tell("STOPPING=1", sdnotify.Extend(more))
			t := time.NewTicker(more / 4)
			defer t.Stop()
			extend = t.C
		case <-signs:
			w.drainTimeout() // whoever holds the lock for ever does not live
			tell("WATCHDOG=1")
		case <-extend:
			tell(sdnotify.Extend(more))
		case <-w.quit:
			select {
			case <-stops: // it was a quick one
				tell("STOPPING=1", sdnotify.Extend(more))
			default:
			}
			return
		}
	}
}

// lastWord tells the supervisor of such a process why it ends, unless that is in order.
func lastWord(err error) {
	if err != nil {
		_ = sdnotify.Send(append(sdnotify.Errno(err), sdnotify.Status(err.Error()))...) // who reads it knows no more than the log
	}
}
