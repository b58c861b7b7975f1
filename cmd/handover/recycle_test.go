//go:build unix

package main

import (
	"context"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/handover-go/handover/draintest/load"
	"github.com/handover-go/handover/workerset"
)

// TestPrintRecycled: what a status says of workers that were replaced because of a limit,
// or could not be.
func TestPrintRecycled(t *testing.T) {
	t.Parallel()
	now := time.Now()
	g := workerset.GroupStatus{
		Name: "web", Count: 2,
		Workers: []workerset.Worker{{Group: "web", Slot: 1, ID: 1, State: "serving", Started: now}},
		Waiting: []workerset.Waiting{
			{Slot: 1, Failures: 3, Reason: "no database", Until: now.Add(400 * time.Second)},
			{Slot: 2, Failures: 4, Reason: "no room"},
			{Slot: 3, Failures: 1, Reason: "no luck"},
			{Slot: 4, Reason: "killed", Until: now.Add(time.Second)},
		},
		Deaths: []workerset.Death{
			{Time: now.Add(-time.Minute), Slot: 1, Pid: 4711, Generation: 2, Cause: "recycle", Reason: "10,000 requests"},
			{Time: now, Slot: 2, Pid: 4712, Generation: 2, Cause: "error", Reason: "no luck"},
		},
	}
	out := strings.Join(view{now: now}.group(g), "\n") + "\n"
	for _, line := range []string{
		"  web/1 gets no other worker after 3 tries, the next in 6m40s: no database\n",
		"  web/2 is empty after 4 tries: no room\n",
		"  web/3 is empty after one try: no luck\n",
		"  web/4 is empty, the next in 1s: killed\n",
		"  1m0s ago web/1 was recycled, pid 4711 of generation 2: 10,000 requests\n",
		"  0s ago web/2 failed, pid 4712 of generation 2: error: no luck\n",
	} {
		if !strings.Contains(out, line) {
			t.Errorf("it does not say %q:\n%s", line, out)
		}
	}
}

// loadUntil loads the service on a unix socket with strict clients until a file has so
// many lines that match: load SOCKET FILE REGEXP NUMBER.
func loadUntil(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 4 {
		ts.Fatalf("usage: load SOCKET FILE REGEXP NUMBER")
	}
	re, err := regexp.Compile(args[2])
	ts.Check(err)
	want, err := strconv.Atoi(args[3])
	ts.Check(err)
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	l, err := load.Start(ctx, load.Config{
		Addr: "unix:" + ts.MkAbs(args[0]), Rate: 20, WaitReady: 20 * time.Second, SlowMS: 50, StreamMS: 50, UploadMS: 50,
		Clients: map[load.Kind]int{load.New: 1, load.Slow: 1, load.Upload: 1, load.Stream: 1, load.KeepAlive: 3},
	})
	ts.Check(err)
	for n := 0; n < want; {
		if err := l.WaitRequests(ctx, 1); err != nil {
			l.Stop()
			ts.Fatalf("%d of %d lines of %s match %s: %v", n, want, args[1], args[2], err)
		}
		b, err := os.ReadFile(ts.MkAbs(args[1]))
		ts.Check(err)
		n = len(re.FindAll(b, -1))
	}
	err = l.WaitEach(ctx, 2)
	r := l.Stop()
	ts.Check(err)
	if err := r.Check(); err != nil {
		ts.Fatalf("clients noticed: %v", err)
	}
	ts.Logf("%d requests, %d processes answered", r.Started, len(r.Workers))
}
