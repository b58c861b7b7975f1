package sdnotify

import "strings"

// Note is one notification, with its sender as the kernel knows it.
type Note struct {
	Pid  int // the sender's
	UID  int // and its user; -1: not known
	Text string
	fds  []int // that came with it
}

// Get returns what is assigned to a variable (sd_notify(3)). If it is assigned
// more than once, the first assignment counts.
func (n Note) Get(name string) (value string, ok bool) {
	for line := range strings.Lines(n.Text) {
		if k, v, found := strings.Cut(strings.TrimSuffix(line, "\n"), "="); found && k == name {
			return v, true
		}
	}
	return "", false
}

// Says reports whether the note assigns this value to that variable.
func (n Note) Says(name, value string) bool {
	v, ok := n.Get(name)
	return ok && v == value
}
