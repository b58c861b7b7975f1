//go:build !unix

// Command handover runs a server as a parent and workers that restart without
// any client noticing. Not on this system.
package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintf(os.Stderr, "handover: %s has no unix signals and sockets to pass between processes: use Linux, or macOS or a BSD for a single process\n", runtime.GOOS)
	os.Exit(1)
}
