package load

import (
	"bytes"
	"net"
	"testing"
	"time"
)

// scripted is a connection on which the given bytes arrive, whatever is sent.
type scripted struct {
	net.Conn // a nil one, for the methods that are not used
	in       *bytes.Reader
}

func (s scripted) Read(p []byte) (int, error)    { return s.in.Read(p) }
func (scripted) Write(p []byte) (int, error)     { return len(p), nil }
func (scripted) Close() error                    { return nil }
func (scripted) LocalAddr() net.Addr             { return &net.TCPAddr{} }
func (scripted) RemoteAddr() net.Addr            { return &net.TCPAddr{} }
func (scripted) SetDeadline(time.Time) error     { return nil }
func (scripted) SetReadDeadline(time.Time) error { return nil }

// Whatever a server sends is either a failure with a class and words, or an answer
// with the right status and id.
func FuzzAnswer(f *testing.F) {
	for _, seed := range []string{
		"", "x", "HTTP/1.1 200 OK\r\n",
		answer("run-1", "Content-Length: 4", "fine"),
		answer("run-1", "Content-Length: 4", "fine!"),
		answer("run-1", "Transfer-Encoding: chunked", "4\r\nfine\r\n0\r\n\r\n"),
		answer("run-1", "Transfer-Encoding: chunked", "ffffffffffffffff\r\nfine"),
		answer("run-2", "Content-Length: -4", "fine"),
		"HTTP/1.1 100 Continue\r\n\r\n" + answer("run-1", "Content-Length: 4", "fine"),
		"HTTP/1.1 204 No Content\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nX-Request-Id: run-1\r\n\r\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		c := &client{cfg: Config{}.withDefaults(), run: "run", dial: func(Kind, time.Time) (net.Conn, error) {
			return scripted{in: bytes.NewReader(text)}, nil
		}}
		out := c.do(New, 1, &link{})
		if fail := out.failure; fail != nil {
			if fail.Class <= 0 || fail.Class >= numClasses || fail.Detail == "" {
				t.Errorf("%+v", fail)
			}
			if (fail.Class == EOF) != (len(text) == 0) {
				t.Errorf("%d bytes came: %v", len(text), fail)
			}
		} else if !bytes.Contains(text, []byte("200")) || !bytes.Contains(text, []byte("run-1")) {
			t.Errorf("a good answer: %q", text)
		}
	})
}
