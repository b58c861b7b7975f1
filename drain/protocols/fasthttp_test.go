package protocols_test

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"testing"
	"time"

	"github.com/valyala/fasthttp"
)

// fastHandler is what strict clients ask for (package load).
func fastHandler(who string) fasthttp.RequestHandler {
	return func(rc *fasthttp.RequestCtx) {
		rc.Response.Header.Set("X-Worker", who)
		rc.Response.Header.SetBytesV("X-Request-Id", rc.Request.Header.Peek("X-Request-Id"))
		switch pause := time.Duration(rc.QueryArgs().GetUintOrZero("ms")) * time.Millisecond; string(rc.Path()) {
		case "/slow":
			<-time.After(pause)
		case "/upload":
			fmt.Fprintf(rc, "%d %x\n", len(rc.PostBody()), sha256.Sum256(rc.PostBody()))
			return
		case "/stream":
			rc.SetBodyStreamWriter(func(w *bufio.Writer) {
				for i := range 10 {
					<-time.After(pause / 10)
					fmt.Fprintln(w, i)
					_ = w.Flush()
				}
			})
			return
		}
		fmt.Fprintln(rc, who)
	}
}

// TestFastHTTP: no request fails in upgrades of a server of fasthttp. Its connections do
// not move: they end after an answer that says so.
func TestFastHTTP(t *testing.T) {
	t.Parallel()
	s := start(t, "fasthttp", "http=tcp://127.0.0.1:0")
	l := s.load(s.addr, everyone)
	for i := range 4 {
		s.upgrade()
		answered(t, l, i+2)
	}
	lameDucks(t, l)
	s.stop()
	s.clean()
}
