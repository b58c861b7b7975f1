//go:build unix

package main

import (
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/handover-go/handover/internal/cgroup"
)

// sweepCommand is what a unit runs when the service has ended. It is for systemd, and nobody
// else.
func sweepCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "sweep",
		Short: "In a unit's ExecStopPost=: end what a service has left that could not stop",
		Long: `In a unit's ExecStopPost=: end what a service has left that could not stop.

With KillMode=process workers outlive a parent that dies, so that the next one
takes them over. When the service was stopped, and its parent had to be killed
for it, there will be no next one: then this kills what is left in the unit's
control group. $SERVICE_RESULT says which it is (systemd.exec(5)).`,
		Example: `  handover sweep`,
		Args:    cobra.NoArgs,
		Hidden:  true,
		RunE: func(*cobra.Command, []string) error {
			switch result := os.Getenv("SERVICE_RESULT"); result {
			case "":
				return &exit{1, errors.New("sweep is for ExecStopPost= of a systemd unit: SERVICE_RESULT is not set")}
			case "success", "timeout":
				if !startedBySystemd() { // who tries it in a shell would lose that
					return &exit{1, errors.New("sweep is for ExecStopPost= of a systemd unit: systemd has not started it")}
				}
				if err := sweep(); err != nil {
					return &exit{1, err}
				}
			default: // it has failed, and is started again
			}
			return nil
		},
	}
}

func startedBySystemd() bool {
	if os.Getppid() == 1 { // which it may not be allowed to look at
		return true
	}
	comm, _ := os.ReadFile(fmt.Sprintf("/proc/%d/comm", os.Getppid())) // a user's
	return string(comm) == "systemd\n"
}

// sweepTime is how long killed processes may take to end.
const sweepTime = 5 * time.Second

// sweep kills all other processes of the unit, until there are none.
func sweep() error {
	said := map[int]bool{}
	for limit := time.Now().Add(sweepTime); ; time.Sleep(10 * time.Millisecond) { // each may have started another one meanwhile
		pids, err := cgroup.Members()
		if err != nil || len(pids) == 0 {
			return err
		}
		if time.Now().After(limit) {
			return fmt.Errorf("the service has left processes that do not end: %v", pids)
		}
		for _, pid := range pids {
			if !said[pid] {
				fmt.Fprintf(os.Stderr, "handover: process %d was left behind: killed\n", pid)
			}
			said[pid] = true
			_ = syscall.Kill(pid, syscall.SIGKILL) // or it has ended meanwhile
		}
	}
}
