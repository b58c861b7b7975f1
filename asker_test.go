package handover_test

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/handover-go/handover/internal/control"
)

// askerName is the test binary as somebody who asks a service.
const askerName = "asker"

// askerMain asks the service whose control socket is named for its status and for a
// restart, and says what comes of both.
func askerMain() {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c := control.NewClient(os.Args[1])
	_, _, err := c.Status(ctx)
	fmt.Println(err)
	ev, err := c.Act(ctx, control.Wish{Verb: control.Restart}, func(control.Event) {})
	fmt.Println(ev.Result, err)
}
