package drain

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"
)

// TestOpen: who keeps a drain is named, those in use first, and of these the oldest.
func TestOpen(t *testing.T) {
	t.Parallel()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	begun, end := make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/hold", func(http.ResponseWriter, *http.Request) { begun <- struct{}{}; <-end })
	mux.HandleFunc("/take", func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			begun <- struct{}{}
			<-end
			c.Close()
		}
	})
	d, err := New(&http.Server{Handler: mux}, ln, Config{})
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- d.Serve() }()
	if got := d.Open(16); len(got) != 0 {
		t.Errorf("%+v", got)
	}
	var want []string
	for _, path := range []string{"", "/", "/hold", "/take"} {
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		peer := c.LocalAddr().String()
		switch path {
		case "":
			<-d.Accepted()
			want = append(want, peer+" new")
			continue
		case "/":
			want = append(want, peer+" idle")
		case "/hold":
			want = append([]string{peer + " active"}, want...)
		case "/take":
			want = append([]string{want[0], peer + " hijacked"}, want[1:]...)
		}
		fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: x\r\n\r\n", path)
		if path == "/" {
			if _, err := io.ReadFull(c, make([]byte, len("HTTP/1.1 200 OK"))); err != nil {
				t.Fatal(err)
			}
		} else {
			<-begun
		}
	}
	for deadline := time.Now().Add(10 * time.Second); ; { // the server says idle after its answer
		var got []string
		for _, c := range d.Open(16) {
			got = append(got, c.Peer+" "+c.State)
			if c.Age <= 0 || c.Age > time.Minute {
				t.Errorf("%+v", c)
			}
		}
		if fmt.Sprint(got) == fmt.Sprint(want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("%q, not %q", got, want)
		}
		<-time.After(time.Millisecond)
	}
	if got := d.Open(1); len(got) != 1 || got[0].State != "active" {
		t.Errorf("%+v", got)
	}
	close(end)
	d.Stop()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := d.Open(16); len(got) != 0 {
		t.Errorf("%+v", got)
	}
}
