package workerset

import (
	"bufio"
	"io"
	"os"
	"path/filepath"
	"strings"
)

// isNode reports whether a program is Node, or a script for it: a Node that is
// started below something else which has NODE_CHANNEL_FD aborts, so the variable is
// for Node alone.
func isNode(path string) bool {
	named := func(p string) bool { b := filepath.Base(p); return b == "node" || b == "nodejs" }
	if named(path) {
		return true
	}
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	// The kernel, too, reads no more of such a line than 255 bytes (execve(2)).
	line, _ := bufio.NewReaderSize(io.LimitReader(f, 256), 256).ReadString('\n')
	line, ok := strings.CutPrefix(line, "#!")
	if !ok {
		return false
	}
	words := strings.Fields(line)
	for i, w := range words {
		switch {
		case named(w):
			return true
		case i == 0 && filepath.Base(w) == "env":
		case strings.HasPrefix(w, "-"), strings.Contains(w, "="): // env's options and variables
		default:
			return false
		}
	}
	return false
}
