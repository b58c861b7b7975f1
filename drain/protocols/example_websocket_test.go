package protocols_test

import (
	"context"
	"net/http"
	"strconv"
	"time"

	"github.com/coder/websocket"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/worker"
)

// WebSockets whose clients are told that the worker leaves, and go on with another where
// they have stopped.
func Example_webSocket() {
	handover.Main(handover.Config{Name: "news", Listen: []string{"http=tcp://:8080"}}, serveWebSockets)
}

// news sends the numbers of all events after the one that the client has seen last.
func news(draining context.Context) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		ws, err := websocket.Accept(rw, r, nil)
		if err != nil {
			return // the client has been told
		}
		defer ws.CloseNow()
		ctx := ws.CloseRead(context.Background()) // r.Context() is over when a connection is hijacked
		last, err := strconv.ParseInt(r.FormValue("after"), 10, 64)
		if err != nil {
			last = newest()
		}
		for {
			for ; last < newest(); last++ {
				if ws.Write(ctx, websocket.MessageText, strconv.AppendInt(nil, last+1, 10)) != nil {
					return
				}
			}
			select {
			case <-draining.Done(): // 1012: the service restarts, come again
				ws.Close(websocket.StatusServiceRestart, "restart")
				return
			case <-ctx.Done(): // the client has gone
				return
			case <-time.After(event):
			}
		}
	})
}

func serveWebSockets(ctx context.Context, w *worker.Worker) error {
	mux := http.NewServeMux()
	mux.Handle("/news", news(ctx))
	mux.Handle("/", others(ctx, who(w)))
	return w.Serve(ctx, "http", &http.Server{Handler: w.Handler(mux)})
}
