package load_test

import (
	"context"
	"fmt"
	"strings"
	"syscall"

	"github.com/handover-go/handover/draintest/load"
)

// A restart under load: wait until the load flows, restart, wait until the new
// process answers and every kind of client has had answers since.
func Example() {
	ctx, pid := context.Background(), 4711
	l, err := load.Start(ctx, load.Config{Addr: "127.0.0.1:8080"})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer l.Stop()
	l.WaitEach(ctx, 10)
	syscall.Kill(pid, syscall.SIGHUP)
	l.WaitWorker(ctx, func(w string) bool { return strings.Contains(w, "g2") })
	l.WaitEach(ctx, 10)
	if err := l.Stop().Check(); err != nil {
		fmt.Println(err)
	}
}
