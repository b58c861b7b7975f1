package load

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// talkTo makes one request of a server that begins as given, then says what it likes, and goes.
func talkTo(t *testing.T, kind Kind, begin func(c net.Conn, r *bufio.Reader) error, said []byte) outcome {
	var wg sync.WaitGroup
	defer wg.Wait()
	c := &client{cfg: Config{Timeout: 10 * time.Second}.withDefaults(), run: "run", dial: func(Kind, time.Time) (net.Conn, error) {
		ours, theirs := net.Pipe()
		wg.Go(func() {
			defer theirs.Close()
			r := bufio.NewReader(theirs)
			if begin(theirs, r) != nil {
				return
			}
			wg.Go(func() { _, _ = io.Copy(io.Discard, r) })
			_, _ = theirs.Write(said)
		})
		return ours, nil
	}}
	for i := range c.targets {
		c.targets[i].host = "x"
	}
	l := c.newLink(kind, nil)
	defer l.close()
	out := c.do(kind, 1, l)
	if f := out.failure; f != nil && (f.Class <= 0 || f.Class >= numClasses || f.Detail == "") {
		t.Errorf("%+v", f)
	}
	return out
}

// upgraded answers the handshake of a WebSocket (RFC 6455, section 4.2.2).
func upgraded(c net.Conn, r *bufio.Reader) error {
	req, err := http.ReadRequest(r)
	if err != nil {
		return err
	}
	sum := sha1.Sum([]byte(req.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	_, err = fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:]))
	return err
}

// FuzzWebSocket: whatever frames a server sends are a failure with a class and words, or the echo.
func FuzzWebSocket(f *testing.F) {
	for _, seed := range []string{
		"", "\x81\x05run-1", "\x81\x05run-2", "\x81\x02hi\x81\x05run-1", "\x01\x03run\x80\x02-1", "\x88\x02\x03\xe8", "\x89\x00\x81\x05run-1", "\x81\x85run-1", "\xff\xff\xff", "\x81\x7f\xff\xff\xff\xff\xff\xff\xff\xff",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		if out := talkTo(t, WebSocket, upgraded, said); out.failure == nil && !bytes.Contains(said, []byte("-1")) && len(said) < 8 {
			t.Errorf("a good answer: %q", said)
		}
	})
}

// FuzzFrames: whatever frames of HTTP/2 a server sends are a failure with a class and words, or an
// answer.
func FuzzFrames(f *testing.F) {
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00"
	for _, seed := range []string{
		"", settings, settings + "\x00\x00\x01\x01\x05\x00\x00\x00\x01\x88", settings + "\x00\x00\x08\x07\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
		settings + "\x00\x00\x04\x03\x00\x00\x00\x00\x01\x00\x00\x00\x08", "HTTP/1.1 400 Bad Request\r\n\r\n", settings + "\x00\x00\x00\x00\x01\x00\x00\x00\x01", "\xff\xff\xff\x00\x00\x00\x00\x00\x00",
	} {
		f.Add([]byte(seed), false)
		f.Add([]byte(seed), true)
	}
	f.Fuzz(func(t *testing.T, said []byte, grpc bool) {
		kind := HTTP2
		if grpc {
			kind = GRPC
		}
		if out := talkTo(t, kind, func(net.Conn, *bufio.Reader) error { return nil }, said); out.failure == nil && len(said) < len(settings) {
			t.Errorf("a good answer: %q", said)
		}
	})
}
