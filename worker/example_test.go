package worker_test

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/handover-go/handover/worker"
)

// A program that is a worker and nothing else: below a parent it takes its sockets
// from it, and started by hand it binds :8080 and serves as one plain process.
func Example() {
	worker.Main(worker.Config{Listen: []string{"http=tcp://:8080"}}, hello)
}

// hello runs once in every worker. Whatever it needs is opened first: an error here
// is a worker that could not start.
func hello(ctx context.Context, w *worker.Worker) error {
	w.Go(func(ctx context.Context) error { // a panic in here is a failure of this worker, not its end
		tick := time.NewTicker(time.Minute)
		defer tick.Stop()
		for {
			select {
			case <-tick.C: // something to be done once a minute
			case <-ctx.Done():
				return nil // the drain has begun
			}
		}
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(rw, "hello from worker %s\n", w.Name())
	})
	return w.Serve(ctx, "http", &http.Server{Handler: w.Handler(mux)})
}
