package protocols_test

import (
	"context"
	"net"
	"net/http"

	"github.com/pires/go-proxyproto"
	"golang.org/x/net/netutil"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/worker"
)

// A server of net/http behind a load balancer that tells clients' addresses by the PROXY
// protocol.
func Example_wrapped() {
	handover.Main(handover.Config{Name: "shop", Listen: []string{"http=tcp://:8080"}}, serveProxied)
}

func serveProxied(ctx context.Context, w *worker.Worker) error {
	srv := &http.Server{Handler: w.Handler(peers(who(w)))} // yours
	proxied := func(ln net.Listener) net.Listener { return &proxyproto.Listener{Listener: ln} }
	return w.Serve(ctx, "http", srv, worker.Wrap(proxied))
}

// serveLimited has two connections at most; others wait in the kernel's queue, for this
// worker or another.
func serveLimited(ctx context.Context, w *worker.Worker) error {
	srv := &http.Server{Handler: w.Handler(peers(who(w)))}
	limited := func(ln net.Listener) net.Listener { return netutil.LimitListener(ln, 2) }
	return w.Serve(ctx, "http", srv, worker.Wrap(limited))
}
