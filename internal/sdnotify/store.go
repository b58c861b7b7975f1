package sdnotify

import (
	"os"
	"strconv"
)

const (
	// EnvStore says how many descriptors the supervisor keeps for this service, as
	// systemd does since version 254 ($FDSTORE, systemd.exec(5)).
	EnvStore = "FDSTORE"
	// EnvAnchor holds the anchor's pid where the supervisor is one.
	EnvAnchor = "HANDOVER_ANCHOR_PID"
)

// Stores reports whether there is a supervisor that keeps descriptors.
func Stores() bool { return StoreMax() > 0 }

// StoreMax is how many descriptors the supervisor keeps for this service. What is too many it
// closes, and tells nobody but its own log.
func StoreMax() int {
	n, err := strconv.Atoi(os.Getenv(EnvStore))
	if !Enabled() || err != nil {
		return 0
	}
	return n
}

// Anchored reports whether the supervisor is an anchor.
func Anchored() bool { return os.Getenv(EnvAnchor) != "" }

// Store gives the supervisor a copy of a descriptor, to pass to the next process
// of the service under the name, if this one dies (sd_pid_notify_with_fds(3), FDSTORE=1).
// What it has already, it does not take again.
func Store(name string, f *os.File) error {
	return say("FDSTORE=1\nFDNAME="+name, f)
}

// Unstore makes the supervisor forget what it has under the name, if there is any.
func Unstore(name string) error { return Send("FDSTOREREMOVE=1", "FDNAME="+name) }
