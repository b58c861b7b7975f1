//go:build !linux

package signals

// StopsOutput reports whether this process would be sent TTOU for writing to its
// terminal from the background. Nobody asks here.
func StopsOutput() bool { return true }
