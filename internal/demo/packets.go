package demo

import (
	"context"
	"fmt"
	"net"

	"github.com/handover-go/handover/worker"
)

// answer says who answers to the sender of every datagram, and what came, until the drain
// begins.
func answer(w *worker.Worker, name, who string) error {
	c, err := w.PacketConn(name)
	if err != nil {
		return err
	}
	defer c.Close()
	b := make([]byte, 1000) // the rest of it is of no interest
	for {
		n, from, err := c.ReadFrom(b)
		if err != nil {
			return err
		}
		if from != nil { // it has an address
			_, _ = c.WriteTo(fmt.Appendf(nil, "%s: %s\n", who, b[:n]), from) // and may be gone
		}
	}
}

// greeter is a drain.Server that says who answers to every connection, and closes
// it. That never waits: the line fits into any connection's buffer.
type greeter struct{ who string }

func (g greeter) Serve(ln net.Listener) error {
	for {
		c, err := ln.Accept()
		if err != nil {
			return err
		}
		_, _ = fmt.Fprintln(c, g.who)
		c.Close()
	}
}

// Shutdown has nothing to do: a drain closes the listener, and no connection stays.
func (greeter) Shutdown(context.Context) error { return nil }
