//go:build linux

package workerset_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"

	"github.com/handover-go/handover/message"
	"github.com/handover-go/handover/worker"
)

// envLog is a file to which a worker appends a line for each "note" that it handles:
// SLOT ID DATA.
const envLog = "TEST_LOG"

func init() { apps["talk"] = talk }

// order makes a worker send a message.
type order struct {
	To    string // parent, all, group NAME, any NAME, GROUP/SLOT
	Type  string
	Data  json.RawMessage
	Times int // post so many, with the data N, N+1 and so on; Data is the first N
}

// results are what became of an order: the answer, or how many ended in which way.
type results struct {
	Answer json.RawMessage
	Err    string
	Ended  map[string]int
	Lost   []int // the numbers of those of which nothing is known
}

func parseAddress(s string) message.Address {
	kind, name, _ := strings.Cut(s, " ")
	switch kind {
	case "parent":
		return message.Parent()
	case "all":
		return message.All()
	case "group":
		return message.Group(name)
	case "any":
		return message.Any(name)
	}
	group, slot, _ := strings.Cut(s, "/")
	n := 0
	_, _ = fmt.Sscan(slot, &n)
	return message.Slot(group, n)
}

// why is the reason of an error, in a word.
func why(err error) string {
	for _, e := range []error{
		message.ErrHandler, message.ErrUnhandled, message.ErrAddress, message.ErrGone, message.ErrLost, message.ErrRefused,
		message.ErrClosed, message.ErrWindow,
	} {
		if errors.Is(err, e) {
			return e.Error()
		}
	}
	if err != nil {
		return err.Error()
	}
	return "ok"
}

// post sends numbers from first on, and says how they ended.
func post(ctx context.Context, e *message.Endpoint, to message.Address, typ string, first, times int) (r results) {
	r.Ended = map[string]int{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for n := first; n < first+times; n++ {
		sent, err := e.Post(ctx, to, typ, n)
		if err != nil {
			mu.Lock()
			r.Ended[why(err)]++
			mu.Unlock()
			continue
		}
		wg.Go(func() {
			_, err := sent.Wait(ctx)
			mu.Lock()
			defer mu.Unlock()
			r.Ended[why(err)]++
			if errors.Is(err, message.ErrLost) {
				r.Lost = append(r.Lost, n)
			}
		})
	}
	wg.Wait()
	return r
}

// talk is a worker that does what messages say.
func talk(ctx context.Context, w *worker.Worker) error {
	e := w.Messages()
	usr := make(chan os.Signal, 1)
	signal.Notify(usr, syscall.SIGUSR2)
	log, err := os.OpenFile(os.Getenv(envLog), os.O_APPEND|os.O_WRONLY|os.O_CREATE, 0o600)
	if err != nil {
		return err
	}
	e.Handle("echo", func(_ context.Context, m *message.Message) (any, error) { return m.Data, nil })
	e.Handle("who", func(context.Context, *message.Message) (any, error) {
		return fmt.Sprintf("%s %d", w.Name(), w.ID()), nil
	})
	e.Handle("fail", func(context.Context, *message.Message) (any, error) { return nil, errors.New("no luck") })
	e.Handle("panic", func(context.Context, *message.Message) (any, error) { panic("no luck at all") })
	e.Handle("note", func(_ context.Context, m *message.Message) (any, error) {
		_, err := fmt.Fprintf(log, "%v %d %d %s\n", m.From, m.From.ID, w.Slot(), m.Data)
		return nil, err
	})
	e.Handle("read", func(_ context.Context, m *message.Message) (any, error) {
		var text []string
		for _, f := range m.Files {
			b, err := io.ReadAll(f)
			f.Close()
			if err != nil {
				return nil, err
			}
			text = append(text, string(b))
		}
		return strings.Join(text, ","), nil
	})
	e.Handle("die", func(context.Context, *message.Message) (any, error) {
		_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
		select {}
	})
	e.Handle("ignore", func(context.Context, *message.Message) (any, error) { return nil, nil })
	count := 0
	e.Handle("count", func(_ context.Context, m *message.Message) (any, error) {
		if string(m.Data) != fmt.Sprint(count) {
			return nil, fmt.Errorf("%s after %d", m.Data, count-1)
		}
		count++
		return nil, nil
	})
	e.Handle("counted", func(context.Context, *message.Message) (any, error) { n := count; count = 0; return n, nil })
	e.Handle("hold", func(ctx context.Context, m *message.Message) (any, error) {
		fmt.Println("holds")
		<-usr // until SIGUSR2
		return "released", nil
	})
	e.Handle("fail worker", func(context.Context, *message.Message) (any, error) { w.Fail(errors.New("asked to")); return nil, nil })
	e.Handle("send", func(ctx context.Context, m *message.Message) (any, error) {
		var o order
		if err := m.Decode(&o); err != nil {
			return nil, err
		}
		if o.Times > 0 {
			first := 0
			_ = json.Unmarshal(o.Data, &first)
			return post(ctx, e, parseAddress(o.To), o.Type, first, o.Times), nil
		}
		sent, err := e.Post(ctx, parseAddress(o.To), o.Type, o.Data)
		if err != nil {
			return results{Err: err.Error()}, nil
		}
		answer, err := sent.Wait(ctx)
		r := results{Answer: answer}
		if err != nil {
			r.Err = err.Error()
		}
		return r, nil
	})
	e.Handle("begin", func(_ context.Context, m *message.Message) (any, error) {
		var o order
		err := m.Decode(&o)
		first := 0
		_ = json.Unmarshal(o.Data, &first)
		w.Go(func(context.Context) error {
			ctx := context.Background()
			return e.Send(ctx, message.Parent(), "finished", post(ctx, e, parseAddress(o.To), o.Type, first, o.Times).Ended)
		})
		return nil, err
	})
	e.Handle("service", func(ctx context.Context, m *message.Message) (any, error) { // until its helper is that one
		var id int
		if err := m.Decode(&id); err != nil {
			return nil, err
		}
		for {
			s, changed := w.Service()
			if h, ok := s.Helper("other"); ok && h.ID == id && s.Ready {
				return s, nil
			}
			select {
			case <-changed:
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
	})
	echoed := 0
	e.Handle("begin echo", func(_ context.Context, m *message.Message) (any, error) {
		var o order
		if err := m.Decode(&o); err != nil {
			return nil, err
		}
		w.Go(func(context.Context) error {
			var list []*message.Sent
			for range o.Times {
				sent, err := e.Post(context.Background(), parseAddress(o.To), o.Type, o.Data)
				if err != nil {
					return err
				}
				list = append(list, sent)
			}
			fmt.Println("echoes")
			for _, sent := range list {
				if answer, err := sent.Wait(context.Background()); err != nil || string(answer) != string(o.Data) {
					return fmt.Errorf("%d bytes, %w", len(answer), err)
				}
				echoed++
			}
			fmt.Println("echoed", echoed)
			return nil
		})
		return nil, nil
	})
	var started chan results
	e.Handle("start", func(_ context.Context, m *message.Message) (any, error) {
		var o order
		err := m.Decode(&o)
		first := 0
		_ = json.Unmarshal(o.Data, &first)
		started = make(chan results, 1)
		w.Go(func(context.Context) error {
			started <- post(context.Background(), e, parseAddress(o.To), o.Type, first, o.Times)
			return nil
		})
		return nil, err
	})
	e.Handle("started", func(_ context.Context, m *message.Message) (any, error) {
		r := <-started
		started <- r // it may have to be said again
		return r, nil
	})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, r *http.Request) { fmt.Fprintln(rw, os.Getpid()) })
	mux.HandleFunc("/hold", func(rw http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(rw)
		_ = rc.EnableFullDuplex()
		fmt.Fprintln(rw, os.Getpid())
		_ = rc.Flush()
		_, _ = io.Copy(io.Discard, r.Body)
	})
	return w.Serve(ctx, "http", &http.Server{Handler: w.Handler(mux)})
}
