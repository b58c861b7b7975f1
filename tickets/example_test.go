package tickets_test

import (
	"context"
	"crypto/tls"
	"errors"
	"log"
	"net/http"
	"syscall"

	"github.com/oklog/run"

	"github.com/handover-go/handover/certs"
	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/tickets"
	"github.com/handover-go/handover/upgrader"
)

// One process, without workers: who comes back after kill -HUP resumes the session.
func Example() {
	up, err := upgrader.New(upgrader.Config{PIDFile: "/run/shop.pid"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen("https", "tcp", ":8443")
	if err != nil {
		log.Fatal(err)
	}
	f, err := up.KeptFile("tickets", tickets.File)
	if err != nil {
		log.Fatal(err)
	}
	keys, err := tickets.New(f, tickets.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer keys.Close()
	pair, err := certs.Load("/etc/shop/cert.pem", "/etc/shop/key.pem", nil)
	if err != nil {
		log.Fatal(err)
	}
	cfg := keys.TLS("https", &tls.Config{GetCertificate: pair.GetCertificate})

	var g run.Group
	g.Add(drain.Actor(&http.Server{}, ln, drain.Config{Successor: up, TLS: cfg}))
	g.Add(up.Actor())
	g.Add(signals.Actor(context.Background(), signals.Map{
		syscall.SIGHUP:  up.Upgrade,
		syscall.SIGUSR1: func(context.Context) error { return pair.Reload() },
		syscall.SIGTERM: signals.Stop,
	}))
	if err := g.Run(); err != nil && !errors.Is(err, signals.ErrStop) {
		log.Fatal(err)
	}
}
