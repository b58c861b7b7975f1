package drain

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// ask lets each client send its share of n requests, one after the other, and returns how
// long that takes, and how much CPU time of all processors.
func ask(b *testing.B, trs []h2Transporter, n int) (wall, cpu time.Duration) {
	var wg sync.WaitGroup
	start, before := time.Now(), cpuTime()
	for _, tr := range trs {
		wg.Go(func() {
			req := must(http.NewRequest("GET", "https://x/", nil))
			for range n / len(trs) {
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
	wg.Wait()
	return time.Since(start), cpuTime() - before
}

func cpuTime() time.Duration {
	var u unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkServeTLS is BenchmarkServe with TLS, and with HTTP/2 in plaintext. It prints
// the ratio of CPU time as well, which tells the same when others use the machine, too; the
// clients' is in it. Beside the medians are the quartiles of the rounds' ratios: a median's
// standard error is about their distance divided by the root of the number of rounds.
// Servers and connections are new in each round, and in a round the two take turns of some
// ten milliseconds, first one and then the other going first. Turns differ a lot in
// how long they take, so there are many of them. There are so many clients that no processor
// has nothing to do: with fewer the time is that in which one waits for another.
func BenchmarkServeTLS(b *testing.B) {
	const n, turns, clients = 640, 48, 32
	for _, protocol := range []string{"http/1.1", "TLS http/1.1", "TLS h2", "h2c"} {
		b.Run(protocol, func(b *testing.B) {
			s := newSite()
			var walls, cpus []float64
			for b.Loop() {
				var cfg Config
				plain, ln := h2Server(s), listen(b, "tcp")
				if !strings.HasPrefix(protocol, "TLS") {
					go plain.Serve(ln)
				} else {
					cfg.TLS = serverTLS(b)
					plain.TLSConfig = serverTLS(b)
					go plain.ServeTLS(ln, "", "")
				}
				d := serve(b, h2Server(s), listen(b, "tcp"), cfg)
				var trs [2][]h2Transporter
				for i, addr := range []net.Addr{ln.Addr(), d.ln.Addr()} {
					for range clients {
						trs[i] = append(trs[i], protocolClient(protocol, addr))
					}
					ask(b, trs[i], n) // to connect
				}
				var wall, cpu [2]time.Duration
				for turn := range turns {
					for i := range trs {
						i ^= turn & 1
						w, c := ask(b, trs[i], n)
						wall[i] += w
						cpu[i] += c
					}
				}
				walls = append(walls, float64(wall[0])/float64(wall[1]))
				cpus = append(cpus, float64(cpu[0])/float64(cpu[1]))
				for _, tr := range slices.Concat(trs[:]...) {
					tr.CloseIdleConnections()
				}
				plain.Close()
				d.Stop()
				<-d.Done()
			}
			reportRatios(b, walls, "ratio")
			reportRatios(b, cpus, "cpu-ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// reportRatios prints the rounds' median and quartiles.
func reportRatios(b *testing.B, rounds []float64, unit string) {
	b.ReportMetric(median(rounds), unit) // sorts them
	b.ReportMetric(rounds[len(rounds)/4], unit+"-q1")
	b.ReportMetric(rounds[len(rounds)*3/4], unit+"-q3")
}

func protocolClient(protocol string, addr net.Addr) h2Transporter {
	switch protocol {
	case "http/1.1":
		return &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "tcp", addr.String()) // whatever the URL says
		}}
	case "h2c", "TLS h2":
		return h2Clients(addr, protocol != "h2c")
	}
	return &http.Transport{DialTLSContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&tls.Dialer{Config: clientTLS("http/1.1")}).DialContext(ctx, "tcp", addr.String())
	}}
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
