package signals

import "golang.org/x/sys/unix"

// StopsOutput reports whether this process would be sent TTOU for writing to its
// terminal from the background (stty tostop). Then that signal must not be caught:
// the kernel would have the write tried for ever.
func StopsOutput() bool {
	for fd := range 3 {
		if t, err := unix.IoctlGetTermios(fd, unix.TCGETS); err == nil && t.Lflag&unix.TOSTOP != 0 {
			return true
		}
	}
	return false
}
