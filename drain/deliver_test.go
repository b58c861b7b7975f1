package drain

import (
	"bufio"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// get sends a request on a connection and returns the answer's body.
func getOn(t *testing.T, c net.Conn) string {
	t.Helper()
	_ = c.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestDeliver(t *testing.T) {
	ln := listen(t, "tcp")
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, "hello") })}
	d, err := New(srv, ln, quiet(Config{LameDuck: time.Millisecond}))
	if err != nil {
		t.Fatal(err)
	}
	ours, theirs := net.Pipe()
	defer ours.Close()
	if err := d.Deliver(theirs); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("before Serve: %v", err)
	}
	d.Hold() // nothing is accepted, and still
	done := make(chan error, 1)
	go func() { done <- d.Serve() }()
	<-d.Serving()
	if err := d.Deliver(theirs); err != nil {
		t.Fatal(err)
	}
	if got := getOn(t, ours); got != "hello" {
		t.Errorf("%q", got)
	}
	if open, _ := d.Active(); open != 1 || d.Served() != 0 {
		t.Errorf("%d open, %d served", open, d.Served())
	}
	d.Drain(0)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if rep := d.Report(); rep.ClosedIdle != 1 || rep.Cut != 0 {
		t.Errorf("%+v", rep)
	}
	late, other := net.Pipe()
	defer late.Close()
	defer other.Close()
	if err := d.Deliver(other); !errors.Is(err, ErrNotDelivered) {
		t.Errorf("after the drain: %v", err)
	}
}
