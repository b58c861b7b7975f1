package load

import (
	"net"
	"net/http"
	"os"
	"testing"

	"github.com/handover-go/handover/draintest/procs"
)

// Not parallel to the others, since it counts the process's descriptors.
func TestLoadLeavesNoDescriptor(t *testing.T) {
	count := func() int {
		fds, err := procs.FDs(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		return len(fds)
	}
	var before int
	for range 2 { // the first time the runtime opens its own
		before = count()
		t.Run("load", func(t *testing.T) {
			ln := listen(t)
			serveRaw(t, ln, func(c *net.TCPConn, _ *http.Request) { resets(c) }, viaHTTP)
			cfg := quick(ln.Addr().String())
			cfg.MaxRequests = 20
			run(t, cfg)
		})
	}
	if after := count(); after != before {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
}
