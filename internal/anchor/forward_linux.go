package anchor

import (
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/handover-go/handover/internal/sdnotify"
)

// own are the variables that are the anchor's to act on: what they say of processes
// and descriptors is true of what it has, and not of what its supervisor has.
var own = []string{
	"MAINPID", "MAINPIDFDID", "BARRIER", "FDSTORE", "FDSTOREREMOVE", "FDNAME", "FDPOLL", "NOTIFYACCESS", varFormat, varStatus, varKeeps, varLives,
}

// forward passes on to the anchor's own supervisor, if there is one, what the parent
// says: to that one the anchor is the service. Who does not read is waited for once, however
// much there is to say.
func (a *anchor) forward(text string) {
	if !sdnotify.Enabled() || a.unheard {
		return
	}
	lines := slices.DeleteFunc(strings.Split(text, "\n"), func(line string) bool {
		name, _, _ := strings.Cut(line, "=")
		return line == "" || slices.Contains(own, name)
	})
	if len(lines) == 0 {
		return
	}
	if err := sdnotify.Forward(strings.Join(lines, "\n")); err != nil {
		a.unheard = true
		a.log.Error("the supervisor is not told what the parent says", "error", err)
	}
}

// watchdog takes out of the environment what a supervisor expects of another process
// than this one (sd_watchdog_enabled(3)). What it expects of this one, the parent does.
func watchdog() {
	if pid := os.Getenv("WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		os.Unsetenv("WATCHDOG_USEC")
	}
	os.Unsetenv("WATCHDOG_PID")
}
