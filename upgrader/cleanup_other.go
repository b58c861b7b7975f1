//go:build !linux

package upgrader

// clearAttempt has nothing to clear: there are no upgrades here.
func clearAttempt(string, []ward) {}
