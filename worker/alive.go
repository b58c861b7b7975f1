package worker

import (
	"os"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"github.com/handover-go/handover/internal/wire"
)

// promise reads what the parent wants to know of this worker's life and death.
func (w *Worker) promise() error {
	beat, crash := os.Getenv(wire.EnvHeartbeat), os.Getenv(wire.EnvCrash)
	os.Unsetenv(wire.EnvHeartbeat)
	os.Unsetenv(wire.EnvCrash)
	if beat != "" {
		ms, err := strconv.ParseInt(beat, 10, 64)
		if err != nil || ms < 0 {
			return bad("%s=%q: not a number of milliseconds", wire.EnvHeartbeat, beat)
		}
		w.state.BeatMS = ms
	}
	if crash != "" {
		fd, err := strconv.Atoi(crash)
		if err != nil || fd < 3 {
			return bad("%s=%q: not a descriptor number", wire.EnvCrash, crash)
		}
		syscall.CloseOnExec(fd)
		w.home.crash = os.NewFile(uintptr(fd), "crash report") // the runtime has a copy
		if err := debug.SetCrashOutput(w.home.crash, debug.CrashOptions{}); err != nil {
			return bad("%s=%q: %w", wire.EnvCrash, crash, err)
		}
	}
	return nil
}

// heartbeat returns a channel on which it is time to say that this worker lives, or
// nil if nobody wants to hear that.
func (w *Worker) heartbeat() (beats <-chan time.Time, stop func()) {
	if w.state.BeatMS == 0 {
		return nil, func() {}
	}
	t := time.NewTicker(time.Duration(w.state.BeatMS) * time.Millisecond)
	return t.C, t.Stop
}
