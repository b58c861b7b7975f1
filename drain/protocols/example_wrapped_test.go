package protocols_test

import (
	"context"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/netutil"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/worker"
)

// A server of net/http behind a load balancer that tells clients' addresses by the PROXY
// protocol.
func Example_wrapped() {
	handover.Main(handover.Config{Name: "shop", Listen: []string{"http=tcp://:8080"}}, serveProxied)
}

// wrapped serves connections that are not the socket's own, but what wrap makes of them,
// with a Drainer of their own, so that net/http's are known as such.
type wrapped struct {
	srv  *http.Server
	wrap func(net.Listener) net.Listener
	made chan *drain.Drainer // has room for one
}

func (s wrapped) Serve(ln net.Listener) error {
	d, err := drain.New(s.srv, s.wrap(ln), drain.Config{LameDuck: lameDuck, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	s.made <- d
	return d.Serve()
}

func (s wrapped) Shutdown(ctx context.Context) error {
	select {
	case d := <-s.made:
		stop := context.AfterFunc(ctx, d.Stop)
		defer stop()
		d.Drain(24 * time.Hour) // ctx ends sooner
		<-d.Done()
	case <-ctx.Done(): // it was never served
	}
	return ctx.Err()
}

func serveProxied(ctx context.Context, w *worker.Worker) error {
	srv := &http.Server{Handler: w.Handler(peers(who(w)))}
	proxied := func(ln net.Listener) net.Listener { return &proxyproto.Listener{Listener: ln} }
	return w.Serve(ctx, "http", wrapped{srv, proxied, make(chan *drain.Drainer, 1)})
}

// serveLimited has two connections at most; others wait in the kernel's queue, for this
// worker or another.
func serveLimited(ctx context.Context, w *worker.Worker) error {
	srv := &http.Server{Handler: w.Handler(peers(who(w)))}
	limited := func(ln net.Listener) net.Listener { return netutil.LimitListener(ln, 2) }
	return w.Serve(ctx, "http", wrapped{srv, limited, make(chan *drain.Drainer, 1)})
}
