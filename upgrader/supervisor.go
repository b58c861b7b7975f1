package upgrader

import (
	"fmt"
	"os"
	"time"

	"github.com/handover-go/handover/internal/sdnotify"
)

// This file is what a supervisor is told of an upgrade (sd_notify(3)): that one has
// begun, RELOADING=1, how it ended, READY=1, and which process is the service, MAINPID=.
// Only the one that is may say so (NotifyAccess=main, systemd.service(5)).

// begins says that an upgrade has begun.
func (u *Upgrader) begins() {
	if err := sdnotify.Send(sdnotify.Reloading()...); err != nil {
		u.log.Warn("the supervisor could not be told that an upgrade has begun", "error", err)
	}
}

// goesOn says that it has failed, and this process is the service as before.
func (u *Upgrader) goesOn() {
	if err := sdnotify.Send("READY=1"); err != nil {
		u.log.Warn("the supervisor could not be told that an upgrade has ended", "error", err)
	}
}

// names says which process is the service, which is ready, and waits until that was
// read. It reports whether it was.
func (u *Upgrader) names(pid int) bool {
	err := sdnotify.Name(pid, "READY=1")
	if err == nil {
		err = sdnotify.Barrier(5 * time.Second)
	}
	if err != nil {
		u.log.Error("the supervisor could not be told of the main process", "pid", pid, "error", err)
	}
	return err == nil
}

// namesItself says that this process is the service now. Where it is not the one that
// the supervisor knows, that one is dead, and nobody may say so but this.
func (u *Upgrader) namesItself() {
	if err := sdnotify.Name(os.Getpid(), "READY=1"); err != nil {
		u.log.Error("the supervisor could not be told that the service is ready", "error", err)
	}
}

// namesUs reports whether an entry of the environment says that the supervisor wants signs
// of life of this process. A new one does without it: they are the main process's to give,
// whatever its pid.
func namesUs(kv string) bool {
	return kv == fmt.Sprintf("%s=%d", sdnotify.EnvWatchdogPid, os.Getpid())
}

// takeWatchdog makes it this process's, so that what it starts does not take itself for
// the one that is meant.
func takeWatchdog() {
	if os.Getenv(sdnotify.EnvWatchdog) != "" && os.Getenv(sdnotify.EnvWatchdogPid) == "" {
		os.Setenv(sdnotify.EnvWatchdogPid, fmt.Sprint(os.Getpid()))
	}
}
