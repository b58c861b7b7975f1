package drain

import (
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"testing"
	"time"
)

// rate lets clients send n requests to addr, and returns requests per second.
func rate(b *testing.B, addr net.Addr, n int, keepAlive bool) float64 {
	const clients = 4
	request := "GET / HTTP/1.1\r\nHost: x\r\n\r\n"
	if !keepAlive {
		request = "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
	}
	var wg sync.WaitGroup
	start := time.Now()
	for range clients {
		wg.Go(func() {
			var c *client
			for range n / clients {
				if c == nil || !keepAlive {
					nc, err := net.Dial(addr.Network(), addr.String())
					if err != nil {
						b.Error(err)
						return
					}
					c = newClient(b, nc)
				}
				io.WriteString(c, request)
				c.expect("hello", !keepAlive)
				if !keepAlive {
					c.Close()
				}
			}
			c.Close()
		})
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkServe prints how many times the requests per second of plain net/http a
// Drainer serves. The two take turns, so that both see the same machine. The
// median of the rounds' ratios is printed.
func BenchmarkServe(b *testing.B) {
	for _, keepAlive := range []bool{true, false} {
		name, n := "keep-alive", 8000
		if !keepAlive {
			name, n = "connection per request", 2000
		}
		b.Run(name, func(b *testing.B) {
			s := newSite()
			plain := &http.Server{Handler: s}
			ln := listen(b, "tcp")
			go plain.Serve(ln)
			defer plain.Close()
			d := serve(b, &http.Server{Handler: s}, listen(b, "tcp"), Config{})
			var ratios []float64
			for b.Loop() {
				p := rate(b, ln.Addr(), n, keepAlive)
				ratios = append(ratios, rate(b, d.ln.Addr(), n, keepAlive)/p)
				q := rate(b, d.ln.Addr(), n, keepAlive)
				ratios = append(ratios, q/rate(b, ln.Addr(), n, keepAlive))
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func median(v []float64) float64 {
	slices.Sort(v)
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}
