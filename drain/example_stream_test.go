package drain_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"

	"github.com/handover-go/handover/drain"
)

// count answers each line with the number of those that have come on the connection.
func count(_ context.Context, c *drain.Stream) {
	var n int       // the state: how many lines have come,
	var line string // and the beginning of the next one
	fmt.Sscanf(string(c.State()), "%d %q", &n, &line)
	for r := bufio.NewReader(c); ; {
		more, err := r.ReadString('\n')
		line += more
		switch {
		case err == nil:
			n++
			fmt.Fprintf(c, "%d: %s", n, line)
			line = ""
		case !errors.Is(err, drain.ErrLeave):
			return // the client has gone, or the drain's time is up
		default: // nothing was lost: what there was before the error is in line
			err := c.Move(fmt.Appendf(nil, "%d %q", n, line))
			if errors.Is(err, drain.ErrNowhere) { // the whole service stops
				fmt.Fprintln(c, "goodbye")
			}
			if !errors.Is(err, drain.ErrNotNow) {
				return
			}
		}
	}
}

// A protocol of your own: the handler has a loop around Read, and tells what has to go with
// the connection when Read says that it should leave. Here is no process to go to.
func ExampleStreams() {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	d, err := drain.New(&drain.Streams{Handler: count}, ln, drain.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		panic(err)
	}
	served := make(chan error)
	go func() { served <- d.Serve() }()

	c, err := net.Dial("tcp", ln.Addr().String())
	if err != nil {
		panic(err)
	}
	answers := bufio.NewReader(c)
	for _, line := range []string{"one\n", "two\n"} {
		io.WriteString(c, line)
		answer, _ := answers.ReadString('\n')
		fmt.Print(answer)
	}
	d.Drain(0)
	rest, _ := io.ReadAll(answers)
	fmt.Println(strings.TrimSpace(string(rest)))
	fmt.Println(<-served)
	// Output:
	// 1: one
	// 2: two
	// goodbye
	// <nil>
}
