package handover_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/drain"
	"github.com/handover-go/handover/worker"
)

// A server with a protocol of its own: each connection has its keys and values, which live as
// long as it does, over any number of upgrades. Try it by 'nc 127.0.0.1 6380', SET and GET,
// and kill -HUP.
func Example_keyValue() {
	handover.Main(handover.Config{Name: "kv", Listen: []string{"kv=tcp://127.0.0.1:6380"}}, keyValue)
}

func keyValue(ctx context.Context, w *worker.Worker) error {
	return w.Serve(ctx, w.Sockets()[0], &drain.Streams{Handler: w.StreamHandler(serveKeys)})
}

// session is what belongs to a connection, and moves with it.
type session struct {
	N    int               // commands so far
	Keys map[string]string // what was set
	Line string            // the beginning of the next command
}

// serveKeys serves a connection until it ends or has moved.
func serveKeys(_ context.Context, c *drain.Stream) {
	s := session{Keys: map[string]string{}}
	if state := c.State(); state != nil {
		if err := gob.NewDecoder(bytes.NewReader(state)).Decode(&s); err != nil {
			slog.Error("the state of a connection can't be read", "error", err)
			return
		}
	}
	for r := bufio.NewReader(c); ; {
		more, err := r.ReadString('\n')
		s.Line += more
		switch {
		case err == nil:
			fmt.Fprintln(c, s.do(strings.Fields(s.Line)))
			s.Line = ""
		case !errors.Is(err, drain.ErrLeave):
			return // the client has gone
		default:
			var state bytes.Buffer
			err := gob.NewEncoder(&state).Encode(s)
			if err == nil {
				err = c.Move(state.Bytes())
			}
			switch {
			case err == nil:
				return
			case errors.Is(err, drain.ErrNotNow): // Read says when to try again
			default:
				fmt.Fprintln(c, "BYE", err)
				return
			}
		}
	}
}

// do carries out a command, and numbers the answer.
func (s *session) do(args []string) string {
	s.N++
	answer := "ERR"
	switch {
	case len(args) == 3 && args[0] == "SET":
		s.Keys[args[1]] = args[2]
		answer = "OK"
	case len(args) == 2 && args[0] == "GET":
		answer = "VALUE " + s.Keys[args[1]]
	case len(args) == 2 && args[0] == "DEL":
		delete(s.Keys, args[1])
		answer = "OK"
	case len(args) == 1 && args[0] == "COUNT":
		answer = fmt.Sprint("COUNT ", len(s.Keys))
	case len(args) == 1 && args[0] == "WHO":
		answer = fmt.Sprint("PID ", os.Getpid())
	}
	return fmt.Sprint(s.N, " ", answer)
}
