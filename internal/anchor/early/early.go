// Package early catches signals in a process that goes on as the anchor of another
// program, before the packages of that program are initialized: it imports next to nothing,
// so that it is one of the first. Until then HUP, INT and what has no effect on a Go program
// are lost, and TERM and QUIT end it: the runtime installs handlers, and unblocks what was
// blocked, before any package has a say.
package early

import (
	"os"
	"os/signal"
	"syscall"
)

// Env is set in such a process.
const Env = "HANDOVER_ANCHOR_STATE"

// Signals gets what has arrived, in such a process, and nil is what it is in others. Its
// owner goes on to catch them in its own way, and calls signal.Stop with it then.
var Signals = catch()

func catch() chan os.Signal {
	if _, ok := os.LookupEnv(Env); !ok {
		return nil
	}
	c := make(chan os.Signal, 32)
	signal.Notify(c, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGQUIT)
	return c
}
