package state_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"time"

	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/state"
	"github.com/handover-go/handover/worker"
)

// A service whose workers serve HTTPS, and take a new certificate at once when its files are
// exchanged: the agent is a group of one, whose worker runs agent, and the others run web.
func Example() {
	worker.Main(worker.Config{Listen: []string{"https=tcp://:8443"}}, func(ctx context.Context, w *worker.Worker) error {
		if w.Group() == "agent" {
			return agent(ctx, w)
		}
		return web(ctx, w)
	})
}

// certs are the files of a directory, as far as they make a certificate.
func certs() state.Source {
	return state.Check(state.Dir("/etc/shop/tls"), func(value json.RawMessage) error {
		_, err := decode(value)
		return err
	})
}

func decode(value json.RawMessage) (*tls.Certificate, error) {
	var files map[string][]byte
	if err := json.Unmarshal(value, &files); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
	return &c, err
}

// agent looks at the truth and tells the others. It has no sockets, so that it says itself
// when it is ready.
func agent(ctx context.Context, w *worker.Worker) error {
	s, err := state.Serve(w.Messages(), "certs", certs(), nil)
	if err != nil {
		return err
	}
	defer s.Close()
	w.Ready()
	<-ctx.Done()
	return nil
}

// web has the value before it is ready. Without a parent it is its own agent.
func web(ctx context.Context, w *worker.Worker) error {
	from := state.From(w.Messages(), message.Slot("agent", 1), "certs")
	if !w.HasParent() {
		s, err := state.Serve(w.Messages(), "certs", certs(), nil)
		if err != nil {
			return err
		}
		defer s.Close()
		from = s
	}
	cert, err := state.Follow(ctx, from, state.Options[*tls.Certificate]{Decode: decode})
	if err != nil {
		return err
	}
	defer cert.Close()
	return w.Serve(ctx, "https", secure{&http.Server{TLSConfig: &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return cert.Get().Value, nil },
	}}})
}

// secure serves TLS.
type secure struct{ *http.Server }

func (s secure) Serve(ln net.Listener) error { return s.ServeTLS(ln, "", "") }

// What is read may be old, and says so.
func ExampleReading_Age() {
	e := message.NewAlone("main") // in a worker: w.Messages()
	defer e.Close(nil)
	store := state.Poll(time.Minute, func(context.Context) (string, string, error) { return "30 %", "version 1", nil })
	from, err := state.Serve(e, "discount", store, nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	defer from.Close()
	discount, err := state.Follow(context.Background(), from, state.Options[string]{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer discount.Close()
	switch r := discount.Get(); {
	case r.Age() > 10*time.Minute:
		fmt.Println("no discount, since", r.Err)
	default:
		fmt.Println(r.Value, r.Version)
	}
	// Output: 30 % version 1
}
