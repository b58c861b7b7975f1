package drain

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// protocolRate lets clients send n requests, four connections with four at a time of HTTP/2,
// or one at a time of HTTP/1.1, and returns requests per second.
func protocolRate(b *testing.B, trs []http.RoundTripper, n int, atATime int) float64 {
	var wg sync.WaitGroup
	start := time.Now()
	for _, tr := range trs {
		for range atATime {
			wg.Go(func() {
				req := must(http.NewRequest("GET", "https://x/", nil))
				for range n / len(trs) / atATime {
					resp, err := tr.RoundTrip(req)
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
		}
	}
	wg.Wait()
	return float64(n) / time.Since(start).Seconds()
}

// BenchmarkServeTLS is BenchmarkServe with TLS, and with HTTP/2 in plaintext.
func BenchmarkServeTLS(b *testing.B) {
	for _, protocol := range []string{"TLS http/1.1", "TLS h2", "h2c"} {
		b.Run(protocol, func(b *testing.B) {
			s := newSite()
			var cfg Config
			plain, ln := h2Server(s), listen(b, "tcp")
			defer plain.Close()
			if protocol == "h2c" {
				go plain.Serve(ln)
			} else {
				cfg.TLS = serverTLS(b)
				plain.TLSConfig = serverTLS(b)
				go plain.ServeTLS(ln, "", "")
			}
			d := serve(b, h2Server(s), listen(b, "tcp"), cfg)
			clients := func(addr net.Addr) (trs []http.RoundTripper) {
				for range 4 {
					switch protocol {
					case "TLS http/1.1":
						tr := &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
							return (&tls.Dialer{Config: clientTLS("http/1.1")}).DialContext(ctx, "tcp", addr.String())
						}}
						b.Cleanup(tr.CloseIdleConnections)
						trs = append(trs, tr)
					default:
						tr := h2Clients(addr, protocol != "h2c")
						b.Cleanup(tr.CloseIdleConnections)
						trs = append(trs, tr)
					}
				}
				return trs
			}
			atATime, n := 4, 2000
			if protocol == "TLS http/1.1" {
				atATime = 1
			}
			p, q := clients(ln.Addr()), clients(d.ln.Addr())
			var ratios []float64
			for b.Loop() {
				x := protocolRate(b, p, n, atATime)
				ratios = append(ratios, protocolRate(b, q, n, atATime)/x)
				y := protocolRate(b, q, n, atATime)
				ratios = append(ratios, y/protocolRate(b, p, n, atATime))
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkDrainHTTP2 prints how many times as long as its longest stream a drain takes of
// 1,000 connections of HTTP/2 with a stream each, which last between 1 and 2 s.
func BenchmarkDrainHTTP2(b *testing.B) {
	const n, longest = 1000, 2 * time.Second
	for _, secure := range []bool{false, true} {
		name, cfg := "h2c", Config{}
		if secure {
			name, cfg.TLS = "TLS", serverTLS(b)
		}
		b.Run(name, func(b *testing.B) {
			var ratios []float64
			for b.Loop() {
				var open, clients sync.WaitGroup
				open.Add(n)
				begin := make(chan struct{})
				d := serve(b, h2Server(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					open.Done()
					<-begin
					time.Sleep(longest / 2)
					if r.URL.Path == "/longest" {
						time.Sleep(longest / 2)
					}
				})), listen(b, "tcp"), cfg)
				for i := range n {
					clients.Go(func() {
						path := "/"
						if i == 0 {
							path = "/longest"
						}
						tr := h2Clients(d.ln.Addr(), secure)
						resp, err := tr.RoundTrip(must(http.NewRequest("GET", "https://x"+path, nil)))
						if err != nil {
							b.Error(err)
							return
						}
						resp.Body.Close()
					})
				}
				open.Wait()
				close(begin)
				d.Drain(0)
				clients.Wait()
				<-d.Done()
				r := d.Report()
				if r.Cut > 0 || r.Finished != n {
					b.Errorf("%+v", r)
				}
				ratios = append(ratios, float64(r.Took)/float64(longest))
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}
