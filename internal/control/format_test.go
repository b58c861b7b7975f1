//go:build linux

package control

import (
	"reflect"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/workerset"
)

func at(min int) time.Time { return time.Date(2024, 5, 6, 7, min, 0, 0, time.UTC) }

var (
	status = Status{
		Service: "shop", Generation: 4, Since: at(8), Pid: 4711, Anchor: 4700, Program: "/usr/bin/shop",
		Listen: []string{"http=tcp://127.0.0.1:8080"}, Upgrading: true,
		Groups: []workerset.GroupStatus{{
			Name: "web", Count: 2, Restarts: 3, Failures: 1, Halted: "worker web/2: exit status 3",
			Workers: []workerset.Worker{{
				Group: "web", Slot: 1, ID: 2, Generation: 4, Pid: 4712, State: "exited", Since: at(9), Started: at(8), Stale: true,
				Cause: "error", Reason: "lost the database", Exit: "exit status 1", Active: 5, Idle: 3, Hijacked: 1, Served: 120, MovedIn: 7, MovedOut: 6, Cut: 2,
				Status: "Serving 5 clients", Dump: "panic: no luck",
				Let: "upgrade", Drain: at(9), Deadline: at(10), Terminated: true, Killed: true, Kept: true, Restarts: 3,
				Conns: []workerset.Conn{{Peer: "192.0.2.1:4711", State: "active", AgeMS: 1500}}, Usage: &workerset.Usage{CPU: 1.25, RSS: 4096, PSS: 2048},
			}, {Group: "web", Slot: 2, ID: 1, Generation: 4, Pid: 4713, State: "serving", Since: at(9), Started: at(8)}},
		}},
		Build: image.Build{Path: "/usr/bin/shop", ID: "abc", Version: "v1.2.3", Revision: "0123+", Go: "go1.26.0"}, Warnings: []string{"/usr/bin/shop is not what runs"},
		Upgrade: &Outcome{Time: at(8), Began: at(7), Generation: 4, Result: Stopped, Reason: "worker web/2: exit status 3"},
	}
	events = []Event{
		{Time: at(8), Generation: 5, Text: "generation 5 begins"},
		{Time: at(9), Generation: 5, Result: Failed, Reason: "exit status 3", Output: "no database"},
		{Time: at(9), Generation: 5, Result: Done},
		{Time: at(9), Generation: 5, Result: Stopped, Reason: "the service stops"},
		{Time: at(9), Result: Moved},
	}
)

// TestFormat: what a service says to clients, which may be of another version, or
// scripts.
func TestFormat(t *testing.T) {
	golden.Check(t, "status.json", [][]byte{golden.JSON(t, status)})
	var lines [][]byte
	for _, ev := range events {
		lines = append(lines, golden.JSON(t, ev))
	}
	golden.Check(t, "events.jsonl", append(lines, golden.JSON(t, Outcome{Time: at(8), Generation: 5, Result: Rolling})))
}

// TestLaterFormat: a client skips what it does not know yet.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	line := golden.Lines(t, "status.json")[0]
	for _, line := range [][]byte{line, golden.Later(line, "service", "groups", "name", "slot", "state", "result")} {
		if got := golden.Read[Status](t, line); !reflect.DeepEqual(got, status) {
			t.Errorf("%s means\n%+v", line, got)
		}
	}
	for i, line := range golden.Lines(t, "events.jsonl")[:len(events)] {
		for _, line := range [][]byte{line, golden.Later(line, "time", "text", "result")} {
			if got := golden.Read[Event](t, line); got != events[i] {
				t.Errorf("%s means\n%+v", line, got)
			}
		}
	}
}
