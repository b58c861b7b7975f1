package workerset

import (
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// maxDump is how much of a crash's report is kept, in bytes.
const maxDump = 256 << 10

// newCrashFile is where a worker's runtime writes its report when it dies
// (debug.SetCrashOutput). It is a file in memory and no pipe: nobody has to read it
// while the worker dies, nor wait, and it costs nothing if nothing is written.
func newCrashFile(name string) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("memfd_create: %w", err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// readCrash returns what a runtime has written, or "".
func readCrash(f *os.File) string {
	if f == nil {
		return ""
	}
	b, _ := io.ReadAll(io.NewSectionReader(f, 0, maxDump))
	return string(b)
}

// headline is the first line of a report that says something, "panic: …" or "fatal
// error: …".
func headline(dump string) string {
	for line := range strings.Lines(dump) {
		if line = strings.TrimSpace(line); line != "" {
			return line[:min(len(line), 512)]
		}
	}
	return ""
}
