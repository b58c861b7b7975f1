package protocols_test

import (
	"context"
	"time"

	"github.com/valyala/fasthttp"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/worker"
)

// A server of fasthttp, none of whose clients is cut off.
func Example_fasthttp() {
	handover.Main(handover.Config{Name: "fast", Listen: []string{"http=tcp://:8080"}}, serveFast)
}

// fastServer is a *fasthttp.Server as a drain serves it.
type fastServer struct{ *fasthttp.Server }

// Shutdown leaves connections open for the lame-duck time, since fasthttp closes those
// that wait for a request at once, also when one is on its way.
func (s fastServer) Shutdown(ctx context.Context) error {
	lame, cancel := context.WithTimeout(ctx, lameDuck)
	defer cancel()
	for s.GetOpenConnectionsCount() > 0 && lame.Err() == nil {
		<-time.After(10 * time.Millisecond)
	}
	return s.ShutdownWithContext(ctx)
}

func serveFast(ctx context.Context, w *worker.Worker) error {
	handler := fastHandler(who(w)) // yours
	return w.Serve(ctx, "http", fastServer{&fasthttp.Server{
		Handler: func(rc *fasthttp.RequestCtx) {
			if ctx.Err() != nil { // the drain has begun
				rc.SetConnectionClose()
			}
			handler(rc)
		},
		CloseOnShutdown: true,
	}})
}
