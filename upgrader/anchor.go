package upgrader

import (
	"fmt"
	"os"

	"github.com/handover-go/handover/internal/anchor"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/sdnotify"
)

// What a process is, in the environment. Package handover says it there, too.
const (
	envRole    = "HANDOVER_ROLE"
	roleAnchor = "anchor"
	roleParent = "parent"
)

// Anchor gives the service a pid that never changes, for a terminal, a container or
// anything else that takes the end of the process that it has started for the end of the
// service. It is to be called first in main, once: it makes this process a small one that
// starts the program again, forwards signals to whichever process is the service now,
// starts it again if it dies, and exits with its status. In that process it never returns;
// in the others it returns nil. The name is shown in ps.
//
// It does nothing where NOTIFY_SOCKET says that something supervises the service, such as
// systemd, which follows its pid by itself, and on other systems than Linux. It may replace
// the process's image (execve(2)), which keeps its pid and what was passed in LISTEN_FDS.
// The error is that this is not possible, and the program may go on without an anchor.
func Anchor(name string) error {
	role := os.Getenv(envRole)
	switch {
	case !launch.Supported:
		return nil
	case role == roleAnchor:
		code, err := anchor.Run(anchor.Config{
			Title: name,
			Env:   []string{envRole + "=" + roleParent},
			Role:  []string{envRole + "=" + roleAnchor},
		})
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		}
		os.Exit(code)
	case role == roleParent && sdnotify.Anchored():
		anchor.Receive()
		anchor.Offer()
		return nil
	case sdnotify.Enabled():
		return nil
	}
	return anchor.Become(name+": anchor", append(os.Environ(), envRole+"="+roleAnchor))
}
