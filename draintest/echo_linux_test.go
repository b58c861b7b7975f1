package draintest_test

import (
	"context"
	"net/http"
	"os"
	"strconv"
	"sync"

	"github.com/coder/websocket"
)

// echoes are the WebSockets of a server, of which http.Server knows nothing any more. Those
// that come when it drains are not forgotten.
type echoes struct {
	ctx   context.Context // ends when they are to
	drain context.CancelFunc

	mu     sync.Mutex
	n      int
	change chan struct{} // closed and replaced when n changes
}

func newEchoes() *echoes {
	e := &echoes{change: make(chan struct{})}
	e.ctx, e.drain = context.WithCancel(context.Background())
	return e
}

func (e *echoes) add(n int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.n += n
	close(e.change)
	e.change = make(chan struct{})
}

// wait waits until none is left. None can come: the http.Server has ended, for which a
// request whose connection is taken from it had been one under way.
func (e *echoes) wait() {
	for {
		e.mu.Lock()
		n, change := e.n, e.change
		e.mu.Unlock()
		if n == 0 {
			return
		}
		<-change
	}
}

// serve sends each message back, and says goodbye when it is to end.
func (e *echoes) serve(w http.ResponseWriter, r *http.Request) {
	e.add(1)
	defer e.add(-1)
	w.Header().Set("X-Worker", strconv.Itoa(os.Getpid()))
	ws, err := websocket.Accept(w, r, nil)
	if err != nil {
		return
	}
	defer ws.CloseNow()
	done := make(chan struct{})
	defer func() { <-done }()
	over, cancel := context.WithCancel(e.ctx)
	defer cancel()
	go func() {
		defer close(done)
		<-over.Done()
		_ = ws.Close(websocket.StatusGoingAway, "restart")
	}()
	for {
		kind, text, err := ws.Read(context.Background())
		if err != nil || ws.Write(context.Background(), kind, text) != nil {
			return
		}
	}
}
