package workerset

import (
	"io"
	"os"
	"strings"
)

// maxDump is how much of a crash's report is kept, in bytes.
const maxDump = 256 << 10

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
