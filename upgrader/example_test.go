package upgrader_test

import (
	"context"
	"errors"
	"log"
	"net/http"
	"os"
	"syscall"

	"github.com/oklog/run"

	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/signals"
	"github.com/handover-go/handover/upgrader"
)

// One process, without workers: kill -HUP changes its binary, and no client
// notices. Anchor keeps the pid where nothing else does.
func Example() {
	if err := upgrader.Anchor("shop"); err != nil {
		log.Print(err) // it goes on without
	}
	up, err := upgrader.New(upgrader.Config{PIDFile: "/run/shop.pid"})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := up.Listen("http", "tcp", ":8080")
	if err != nil {
		log.Fatal(err)
	}
	srv := &http.Server{Handler: http.NotFoundHandler()}

	var g run.Group
	g.Add(drain.Actor(srv, ln, drain.Config{}))
	g.Add(up.Actor())
	g.Add(signals.Actor(context.Background(), signals.Map{
		syscall.SIGHUP:  up.Upgrade,
		syscall.SIGTERM: signals.Stop,
		syscall.SIGINT:  signals.Stop,
	}, signals.Late(func(sig os.Signal) {
		if sig == syscall.SIGHUP { // to a process that was just replaced
			up.Relay(sig)
		}
	})))
	if err := g.Run(); err != nil && !errors.Is(err, signals.ErrStop) {
		log.Fatal(err)
	}
}
