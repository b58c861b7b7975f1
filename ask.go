package handover

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/metrics"
	"github.com/handover-go/handover/upgrader"
)

// statusName is the name of the status address among the service's sockets.
const statusName = "handover.status"

// door is where the service can be asked.
type door struct {
	socket *upgrader.Socket
	server *control.Server
}

// addDoor has all doors answer what everybody may ask.
func (p *parent) addDoor(s *upgrader.Socket, srv *control.Server) {
	srv.Handle("GET /metrics", p.serveMetrics)
	p.doors = append(p.doors, door{s, srv})
}

// answer begins to answer.
func (p *parent) answer() {
	for _, d := range p.doors {
		ln, err := d.socket.Listener()
		if err != nil {
			p.log.Error("questions can't be answered", "socket", d.socket.Name(), "error", err)
			continue
		}
		d.server.Serve(ln)
	}
}

// pause leaves whoever comes to the next parent, or to answer.
func (p *parent) pause() {
	for _, d := range p.doors {
		d.server.Pause()
	}
}

func (p *parent) closeDoors() {
	for _, d := range p.doors {
		d.server.Close()
	}
}

// statusSpec is the status address.
func (c Config) statusSpec() (listen.Spec, error) {
	network, addr, _ := strings.Cut(c.StatusListen, "://")
	spec := listen.Spec{Name: statusName, Network: network, Addr: addr}
	if spec.Kind() != "tcp" {
		return spec, fmt.Errorf("status address %q: write it as tcp://HOST:PORT, for example tcp://127.0.0.1:9090", c.StatusListen)
	}
	if err := spec.Validate(); err != nil {
		return spec, fmt.Errorf("status address %q: %w", c.StatusListen, err)
	}
	return spec, nil
}

// validateStatus says why the status address can't work.
func (c Config) validateStatus() error {
	if c.StatusListen == "" {
		return nil
	}
	spec, err := c.statusSpec()
	if err != nil {
		return err
	}
	others, _ := listen.ParseAll(c.Listen) // was looked at
	for _, o := range others {
		if o.Kind() == spec.Kind() && o.Addr == spec.Addr && !strings.HasSuffix(spec.Addr, ":0") {
			return fmt.Errorf("status address %q: socket %v has it", c.StatusListen, o)
		}
	}
	return nil
}

// openStatus opens the status address, if there is to be one.
func (p *parent) openStatus() error {
	if p.cfg.StatusListen == "" {
		return nil
	}
	spec, err := p.cfg.statusSpec()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	s, err := p.up.Open(spec.Name, spec.Network, spec.Addr)
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("status address %s: %w: it is another process's. Give one of them another address", p.cfg.StatusListen, syscall.EADDRINUSE)
	case err != nil:
		return fmt.Errorf("status address %s: %w", p.cfg.StatusListen, err)
	}
	p.addDoor(s, control.NewPublicServer(p, p.log))
	return nil
}

// serveMetrics answers a scrape. As long as the predecessor may go on instead, who knows
// less, nothing is said that would have to be taken back.
func (p *parent) serveMetrics(w http.ResponseWriter, r *http.Request) {
	select {
	case <-p.released:
		p.metrics.ServeHTTP(w, r, metrics.About{Service: p.cfg.Name, Since: p.since}, p.set)
	case <-r.Context().Done():
	}
}

func (p *parent) giveMetrics(ctx context.Context) json.RawMessage {
	state, err := p.metrics.Give(ctx, p.set)
	if err != nil {
		p.log.Warn("the next parent does not get the counters: they begin anew", "error", err)
	}
	return state
}

// takeMetrics goes on with what the predecessor has counted. One of the first versions has
// counted nothing.
func (p *parent) takeMetrics(state json.RawMessage) {
	if len(state) == 0 {
		return
	}
	if err := p.metrics.Take(state); err != nil {
		p.log.Warn("the counters of the previous parent can't be read: they begin anew", "error", err)
	}
}
