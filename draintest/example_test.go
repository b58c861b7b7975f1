package draintest_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/handover-go/handover/draintest"
)

// A restart under load: wait until the load flows, restart, wait until the new
// process answers and every kind of client has had answers since.
func Example() {
	ctx, pid := context.Background(), 4711
	load, err := draintest.Start(ctx, draintest.Config{Addr: "127.0.0.1:8080"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer load.Stop()
	load.WaitEach(ctx, 10)
	syscall.Kill(pid, syscall.SIGHUP)
	load.WaitWorker(ctx, func(w string) bool { return strings.Contains(w, "g2") })
	load.WaitEach(ctx, 10)
	if err := load.Stop().Check(); err != nil {
		fmt.Println(err)
	}
}
