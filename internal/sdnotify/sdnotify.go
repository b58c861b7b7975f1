// Package sdnotify speaks systemd's notification protocol to whatever
// supervises this process: systemd itself, or the anchor, which copies it
// (sd_notify(3)).
package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"
)

// Env names the environment variable that holds the supervisor's socket.
const Env = "NOTIFY_SOCKET"

// ErrAddress is wrapped by errors about the value of NOTIFY_SOCKET.
var ErrAddress = errors.New(Env + " is not the address of a datagram socket")

// ErrTimeout is wrapped when the supervisor does not read, or does not answer a
// barrier, in time.
var ErrTimeout = errors.New("the supervisor does not respond")

// sendTimeout is how long Send waits for a supervisor whose queue is full.
const sendTimeout = 5 * time.Second

// Enabled reports whether there is a supervisor to talk to.
func Enabled() bool { return os.Getenv(Env) != "" }

// Send sends the assignments, such as "READY=1", in one datagram. Without a
// supervisor it does nothing and returns nil, and so when this process has named another
// one (Name). A supervisor that has stopped reading is waited for no longer than 5 s, after a Name
// that is under way. It may be called from any goroutine.
func Send(assignments ...string) error { return say(strings.Join(assignments, "\n"), nil) }

// voice is who speaks for the service: only one process may (NotifyAccess=main,
// systemd.service(5)).
var voice struct {
	sync.RWMutex      // held while something is said
	another      bool // does
}

// say sends if this process may speak.
func say(text string, f *os.File) error {
	voice.RLock()
	defer voice.RUnlock()
	if voice.another {
		return nil
	}
	return send(text, f, time.Now().Add(sendTimeout))
}

// Name is Send of MAINPID=, that of a process which is the service from now on, and the
// assignments. If it is another than this one, that is the last that this one says, until it names
// itself: nobody would listen.
func Name(pid int, assignments ...string) error {
	voice.Lock()
	defer voice.Unlock()
	voice.another = pid != os.Getpid()
	text := strings.Join(append([]string{fmt.Sprintf("MAINPID=%d", pid)}, assignments...), "\n")
	return send(text, nil, time.Now().Add(sendTimeout))
}

// Barrier waits until the supervisor has taken in all that was sent before,
// at most for the given time (sd_notify_barrier(3)). A process that names its
// successor and exits must not be gone before that is read. Without a supervisor
// it returns nil at once.
func Barrier(timeout time.Duration) error {
	if !Enabled() {
		return nil
	}
	deadline := time.Now().Add(timeout)
	r, w, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	defer r.Close()
	err = send("BARRIER=1", w, deadline)
	w.Close()
	if err != nil {
		return fmt.Errorf("notify barrier: %w", err)
	}
	// The supervisor closes its copy when it gets to it: end of file.
	_ = r.SetReadDeadline(deadline)
	if _, err := r.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
		return fmt.Errorf("notify barrier: %w within %v", ErrTimeout, timeout)
	}
	return nil
}

// address is what NOTIFY_SOCKET says: a path or an abstract address, or "".
func address() (string, error) {
	addr := os.Getenv(Env)
	if addr == "" {
		return "", nil
	}
	bad := func(why string) (string, error) { return "", fmt.Errorf("%w: %q: %s", ErrAddress, addr, why) }
	switch {
	case addr[0] != '/' && addr[0] != '@':
		return bad("neither an absolute path nor an abstract address (@…)")
	case len(addr) == 1:
		return bad("it has no name")
	}
	return addr, nil
}
