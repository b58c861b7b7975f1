package anchor

import (
	"strconv"
	"strings"
)

// note is one notification, with its sender as the kernel knows it.
type note struct {
	pid     int   // the sender's
	mainPid int   // what it says of MAINPID, or 0
	ready   bool  // it says READY=1
	fds     []int // that came with it
}

// parse reads the lines of a notification (sd_notify(3)). Of a variable that is
// assigned more than once the first assignment counts; lines that the anchor has
// no use for are skipped.
func (n *note) parse(text string) {
	named := false
	for line := range strings.Lines(text) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		switch {
		case name == "READY":
			n.ready = n.ready || value == "1"
		case name == "MAINPID" && !named:
			named = true
			if pid, err := strconv.ParseInt(value, 10, 32); err == nil && pid > 0 {
				n.mainPid = int(pid)
			}
		}
	}
}
