package state

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/worker"
)

// What the workers of the tests run. TEST_APP says which, TEST_SOURCE where the truth is.
var apps = map[string]struct {
	source func(where string) Source
	web    func(ctx context.Context, w *worker.Worker, from Origin) error
}{
	"text":  {func(where string) Source { return File(where) }, textApp},
	"certs": {func(where string) Source { return Check(Dir(where), usablePair) }, certsApp},
	"redis": {func(where string) Source { return redisSource(where) }, textApp},
}

func workerMain() {
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	slog.SetDefault(log)
	app := apps[os.Getenv("TEST_APP")]
	worker.Main(worker.Config{Logger: log}, func(ctx context.Context, w *worker.Worker) error {
		if w.Group() == "agent" {
			return agentApp(ctx, w, app.source(os.Getenv("TEST_SOURCE")))
		}
		return app.web(ctx, w, From(w.Messages(), message.Slot("agent", 1), "truth"))
	})
}

// agentApp is an agent: it serves no client.
func agentApp(ctx context.Context, w *worker.Worker, src Source) error {
	s, err := Serve(w.Messages(), "truth", src, nil)
	if err != nil {
		return err
	}
	defer s.Close()
	w.Ready()
	<-ctx.Done()
	return nil
}

// view is what a worker says of the value.
type view struct {
	Worker  string
	Pid     int
	Text    string
	Version string
	OK      bool
	Err     string
	AgeMS   float64
}

// textApp answers with what it knows. GET /follow goes on with a line for each change,
// until the client has enough.
func textApp(ctx context.Context, w *worker.Worker, from Origin) error {
	wait, _ := time.ParseDuration(os.Getenv("TEST_WAIT"))
	v, err := Follow[[]byte](ctx, from, Options[[]byte]{Beat: 200 * time.Millisecond, Wait: wait})
	if err != nil {
		return err
	}
	see := func() view {
		r := v.Get()
		s := view{
			Worker: fmt.Sprintf("%s id %d generation %d", w.Name(), w.ID(), w.Generation()), Pid: os.Getpid(),
			Text: string(r.Value), Version: r.Version, OK: r.OK, AgeMS: float64(r.Age()) / 1e6,
		}
		if r.Err != nil {
			s.Err = r.Err.Error()
		}
		return s
	}
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { _ = json.NewEncoder(rw).Encode(see()) })
	mux.HandleFunc("/follow", func(rw http.ResponseWriter, r *http.Request) {
		for {
			changed := v.Changed()
			if json.NewEncoder(rw).Encode(see()) != nil || http.NewResponseController(rw).Flush() != nil {
				return
			}
			select {
			case <-changed:
			case <-r.Context().Done():
				return
			}
		}
	})
	return w.Serve(ctx, "http", &http.Server{Handler: w.Handler(mux)})
}

// pair makes a certificate of a directory's files. It fails for two that do not belong
// together.
func pair(raw json.RawMessage) (*tls.Certificate, error) {
	var files map[string][]byte
	if err := json.Unmarshal(raw, &files); err != nil {
		return nil, err
	}
	c, err := tls.X509KeyPair(files["tls.crt"], files["tls.key"])
	return &c, err
}

func usablePair(raw json.RawMessage) error {
	_, err := pair(raw)
	return err
}

// tlsServer serves TLS on a plain listener.
type tlsServer struct{ *http.Server }

func (s tlsServer) Serve(ln net.Listener) error { return s.ServeTLS(ln, "", "") }

// certsApp serves HTTPS with whatever certificate there is at each handshake.
func certsApp(ctx context.Context, w *worker.Worker, from Origin) error {
	cert, err := Follow(ctx, from, Options[*tls.Certificate]{Decode: pair})
	if err != nil {
		return err
	}
	srv := &http.Server{
		Handler: w.Handler(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, w.Name()) })),
		TLSConfig: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return cert.Get().Value, nil
		}},
	}
	return w.Serve(ctx, "http", tlsServer{srv})
}

// redisSource polls a key of a Redis on a unix socket.
func redisSource(socket string) Source {
	return Poll(50*time.Millisecond, func(ctx context.Context) ([]byte, string, error) {
		text, err := redis(ctx, socket, "GET", "truth")
		return []byte(text), "", err
	})
}

// redis sends one command and reads one answer: all of its protocol that is needed here.
func redis(ctx context.Context, socket string, args ...string) (string, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "unix", socket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if deadline, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(deadline)
	}
	fmt.Fprintf(conn, "*%d\r\n", len(args))
	for _, a := range args {
		fmt.Fprintf(conn, "$%d\r\n%s\r\n", len(a), a)
	}
	r := bufio.NewReader(conn)
	line, err := r.ReadString('\n')
	if err != nil {
		return "", err
	}
	line = strings.TrimRight(line, "\r\n")
	n, err := strconv.Atoi(line[1:])
	switch {
	case line[0] == '+' || line[0] == ':':
		return line[1:], nil
	case line[0] != '$' || err != nil:
		return "", errors.New(line)
	case n < 0:
		return "", errors.New("there is no such key")
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return string(b), err
}
