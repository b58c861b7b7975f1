//go:build linux

package worker_test

import (
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/handover-go/handover/internal/wire"
)

// TestEnvironment: what the app starts does not take itself for a worker.
func TestEnvironment(t *testing.T) {
	t.Parallel()
	p := begin(t, spec{app: "environment", sockets: []string{"http", "admin"}, env: []string{
		"NODE_CHANNEL_FD=5", "HANDOVER_ACCEPT=1", "COLOUR=red",
	}})
	p.cause(wire.CauseDone)
	p.drain(0, true)
	p.exits("exit status 0")
	out := p.output()
	for _, name := range []string{"HANDOVER_", "LISTEN_", "NODE_CHANNEL_FD"} {
		if strings.Contains("\n"+out, "\n"+name) {
			t.Errorf("the app sees %s…\n%s", name, out)
		}
	}
	for _, want := range []string{"COLOUR=red\n", "web/2 web 2 7 3 true [admin http]\n"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
}

// TestBadInheritance: a worker that was given something wrong says what, with exit
// status 2.
func TestBadInheritance(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		env  []string
		want string
	}{
		{[]string{"LISTEN_FDS=x"}, `LISTEN_FDS="x": not a count`},
		{[]string{"LISTEN_FDS=-1"}, `LISTEN_FDS="-1": not a count`},
		{[]string{"LISTEN_FDS=2"}, `LISTEN_FDS=2, but LISTEN_FDNAMES="http" has 1 names`},
		{[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=a:a"}, `LISTEN_FDNAMES="a:a": empty or repeated name "a"`},
		{[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=http:"}, `empty or repeated name ""`},
		// Descriptor 3 is the socket, 4 the channel, and there is no more.
		{[]string{"LISTEN_FDS=2", "LISTEN_FDNAMES=http:more"}, `HANDOVER_CHANNEL_FD="4": that descriptor is the socket "more"`},
		{[]string{"LISTEN_FDS=3", "LISTEN_FDNAMES=http:more:most"}, `LISTEN_FDS=3: descriptor 5, "most", is not open: bad file descriptor`},
		{[]string{"LISTEN_FDS=20", "LISTEN_FDNAMES=http" + strings.Repeat(":", 19)}, `empty or repeated name ""`},
		{[]string{"HANDOVER_CHANNEL_FD=x"}, `HANDOVER_CHANNEL_FD="x": not a descriptor number`},
		{[]string{"HANDOVER_CHANNEL_FD=-1"}, `HANDOVER_CHANNEL_FD="-1": not a descriptor number`},
		{[]string{"HANDOVER_CHANNEL_FD=999"}, `HANDOVER_CHANNEL_FD="999": wire: descriptor 999 is not usable`},
		{[]string{"HANDOVER_CHANNEL_FD=1"}, `HANDOVER_CHANNEL_FD="1": wire: descriptor 1 is a regular file`},
		{[]string{"HANDOVER_CHANNEL_FD=3"}, `HANDOVER_CHANNEL_FD="3": that descriptor is the socket "http"`},
		{[]string{"HANDOVER_WORKER="}, `HANDOVER_WORKER="": want GROUP/SLOT/ID/GENERATION`},
		{[]string{"HANDOVER_WORKER=web/1/2"}, `HANDOVER_WORKER="web/1/2": want GROUP/SLOT/ID/GENERATION`},
		{[]string{"HANDOVER_WORKER=web/0/1/1"}, `"0" is not a positive number`},
		{[]string{"HANDOVER_TICKETS_FD=x"}, `HANDOVER_TICKETS_FD="x": not a descriptor number`},
		{[]string{"HANDOVER_TICKETS_FD=2"}, `HANDOVER_TICKETS_FD="2": not a descriptor number`},
		{[]string{"HANDOVER_TICKETS_FD=999"}, `HANDOVER_TICKETS_FD="999": descriptor 999 is not open: bad file descriptor`},
		{[]string{envTimeout + "=-1s"}, `drain timeout -1s`},
	} {
		t.Run(strings.Join(c.env, ","), func(t *testing.T) {
			t.Parallel()
			p := begin(t, spec{app: "serve", sockets: []string{"http"}, env: c.env})
			p.exits("exit status 2")
			if out := p.output(); !strings.Contains(out, "worker: bad configuration: ") || !strings.Contains(out, c.want) {
				t.Errorf("want %s:\n%s", c.want, out)
			}
		})
	}
}

// TestWrongKind: what a worker was given is not what its app makes of it.
func TestWrongKind(t *testing.T) {
	t.Parallel()
	for want, c := range map[string]struct {
		app string
		fd  func() (int, error)
	}{
		`socket "http": wrong kind of descriptor: it is of the network file, use PacketConn or File`: {"serve", func() (int, error) {
			return unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		}},
		`socket "http": wrong kind of descriptor: it is of the network udp, use PacketConn or File`: {"serve", func() (int, error) {
			return unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		}},
		`socket "http": wrong kind of descriptor: it is of the network file, use Serve, Listener or File`: {"packets", func() (int, error) {
			return unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0) // does not listen
		}},
	} {
		t.Run(want, func(t *testing.T) {
			t.Parallel()
			bad, err := c.fd()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(bad)
			p := begin(t, spec{app: c.app, env: []string{"LISTEN_FDS=1", "LISTEN_FDNAMES=http"}, first: bad})
			p.cause(wire.CauseError)
			p.drain(0, true)
			p.exits("exit status 1")
			if out := p.output(); !strings.Contains(out, want) {
				t.Errorf("want %s:\n%s", want, out)
			}
		})
	}
}
