package drain

import (
	"net/http"
	"testing"
)

// TestRequests: what is served counts, on however many connections.
func TestRequests(t *testing.T) {
	t.Parallel()
	ln, srv := newPipes(), &http.Server{Handler: newSite(), Protocols: new(http.Protocols)}
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.Protocols.SetHTTP1(true)
	d := serve(t, srv, ln, Config{})
	kept := ln.dial(t)
	for range 3 {
		kept.get("/")
		kept.expect("hello", false)
	}
	other := ln.dial(t)
	other.get("/")
	other.expect("hello", false)
	if n := d.Requests(); n != 4 || d.Served() != 2 {
		t.Errorf("%d requests on %d connections, not 4 on 2", n, d.Served())
	}
	tr := h2Transport(ln, t)
	defer tr.CloseIdleConnections()
	for range 5 {
		resp, err := (&http.Client{Transport: tr}).Get("http://x/")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.ProtoMajor != 2 {
			t.Error(resp.Proto)
		}
	}
	if n := d.Requests(); n != 9 || d.Served() != 3 {
		t.Errorf("%d requests on %d connections, not 9 on 3", n, d.Served())
	}
}

// TestRequestsOfOtherServers: of those a connection is one.
func TestRequestsOfOtherServers(t *testing.T) {
	t.Parallel()
	d := serve(t, echo(), listen(t, "tcp"), Config{})
	for range 2 {
		c := dial(t, d.ln.Addr())
		c.send("hello\n")
		if line, err := c.r.ReadString('\n'); line != "hello\n" || err != nil {
			t.Errorf("%q, %v", line, err)
		}
		c.Close()
	}
	if n := d.Requests(); n != 2 {
		t.Errorf("%d requests, not 2", n)
	}
}
