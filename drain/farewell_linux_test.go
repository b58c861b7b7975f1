package drain

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// abrupt is a connection whose end is an error: who is told by TLS does not see it.
type abrupt struct{ net.Conn }

var errAbrupt = errors.New("the connection has ended, and TLS has not")

func (c abrupt) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err == io.EOF {
		err = errAbrupt
	}
	return n, err
}

// Idle connections of HTTP/1 on TLS end as TLS wants it (close_notify).
func TestTLSFarewell(t *testing.T) {
	t.Parallel()
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ln := listen(t, "tcp")
			d := serve(t, &http.Server{Handler: newSite()}, ln, Config{TLS: serverTLS(t), LameDuck: time.Millisecond})
			cfg := clientTLS("http/1.1")
			cfg.MaxVersion = version
			dial := func() *client {
				tc := tls.Client(abrupt{dial(t, ln.Addr()).Conn}, cfg)
				if err := tc.Handshake(); err != nil {
					t.Fatal(err)
				}
				return newClient(t, tc)
			}
			fresh, idle := dial(), dial()
			idle.get("/")
			idle.expect("hello", false)
			until(t, "the server has shaken hands, too", func() bool {
				conns := d.open()
				for _, c := range conns {
					if tc := c.secure.Load(); tc == nil || !tc.ConnectionState().HandshakeComplete {
						return false
					}
				}
				return len(conns) == 2
			})
			d.Drain(0)
			idle.closed()
			fresh.closed()
			d.drained(0, 2, 0)
		})
	}
}

// Who does not read is not waited for.
func TestWritable(t *testing.T) {
	t.Parallel()
	ln := listen(t, "tcp")
	defer ln.Close()
	c := dial(t, ln.Addr())
	if !writable(c.Conn) {
		t.Error("nothing was written yet")
	}
	control(t, c.Conn, func(fd int) (err error) {
		for err == nil {
			_, err = unix.Write(fd, make([]byte, 1<<16))
		}
		return nil
	})
	if writable(c.Conn) {
		t.Error("the buffers are full")
	}
	if a, b := net.Pipe(); writable(a) {
		t.Error("what is no socket may wait")
	} else {
		a.Close()
		b.Close()
	}
}
