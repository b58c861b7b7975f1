package load

import (
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

func TestNothingIsNoPass(t *testing.T) {
	t.Parallel()
	lost := Result{Counts: Counts{Started: 3, OK: 2}, ByKind: map[Kind]Counts{New: {Started: 3, OK: 2}}}
	wrongSum := Result{Counts: Counts{Started: 3, OK: 3}, ByKind: map[Kind]Counts{New: {Started: 2, OK: 2}}}
	idle := Result{Counts: Counts{Started: 3, OK: 3}, ByKind: map[Kind]Counts{New: {Started: 3, OK: 3}, Slow: {}}}
	for name, tc := range map[string]struct {
		r    Result
		want string
	}{
		"zero value":         {Result{}, "no requests"},
		"a request is lost":  {lost, "1 of 3 requests of kind new are not accounted for"},
		"sums don't agree":   {wrongSum, "don't add up"},
		"kind without a one": {idle, "kind slow had no good answer"},
	} {
		if err := tc.r.Check(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got: %v", name, tc.want, err)
		}
	}
	cfg := quick(rightServer(t, nil))
	l := mustStart(t, cfg)
	l.stop() // most often before the first request
	if r := l.Stop(); r.Started == 0 && r.Check() == nil {
		t.Error("a load without requests passes")
	}
}

func TestExcept(t *testing.T) {
	t.Parallel()
	ln := listen(t)
	var mu sync.Mutex
	peers := map[string]bool{}
	serveRaw(t, ln, func(c *net.TCPConn, _ *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		peers[c.RemoteAddr().String()] = true
		resets(c)
	}, viaHTTP)
	cfg := quick(ln.Addr().String())
	cfg.Clients, cfg.Rate, cfg.MaxRequests = map[Kind]int{New: 1}, 200, 60
	began := time.Now()
	r := run(t, cfg)
	ended := time.Now()
	mu.Lock()
	defer mu.Unlock()
	if r.Failures.Total() != 30 || len(peers) != 30 {
		t.Fatalf("want 30 failures:\n%v", r)
	}
	before := r.String()

	some := maps.Clone(peers)
	delete(some, r.Errors[7].Local)
	x := r.Except(some)
	if x.Excused != 29 || x.Failures.Total() != 1 || len(x.Errors) != 1 || x.Errors[0] != r.Errors[7] || x.Check() == nil {
		t.Errorf("all but one are excused:\n%v", x)
	}
	x = x.Except(peers)
	if err := x.Accounted(); err != nil || x.Excused != 30 || x.Failures.Total() != 0 || x.Started != 60 {
		t.Errorf("%v\n%v", err, x)
	}
	if err := r.Except(peers).Check(); err != nil {
		t.Error(err)
	}
	if got := r.ExceptAt(began, peers).Excused + r.ExceptAt(ended, peers).Excused; got != 0 {
		t.Errorf("%d excused that were not under way", got)
	}
	f := r.Errors[3]
	if got := r.ExceptAt(f.Began.Add(f.When.Sub(f.Began)/2), map[string]bool{f.Local: true}).Excused; got != 1 {
		t.Errorf("%d excused, want the one that was under way", got)
	}
	if r.String() != before {
		t.Error("Except changed its receiver")
	}
}

// What was there at a moment is what had begun, or had a connection, and ended after it.
func TestExceptAt(t *testing.T) {
	t.Parallel()
	at := time.Now()
	before, after, later := at.Add(-time.Second), at.Add(time.Second), at.Add(2*time.Second)
	peers := map[string]bool{"one": true}
	for _, tc := range []struct {
		f    Failure
		want int
	}{
		{Failure{Began: before, Connected: before, When: after}, 1},
		{Failure{Began: before, Connected: after, When: later}, 1}, // a moment too late in a busy client
		{Failure{Began: after, Connected: before, When: later}, 1}, // on a connection that was kept
		{Failure{Began: after, Connected: after, When: later}, 0},  // an address used again
		{Failure{Began: before, Connected: before, When: before}, 0},
	} {
		tc.f.Kind, tc.f.Class, tc.f.Local = KeepAlive, Reset, "one"
		other := tc.f
		other.Local = "another"
		r := Result{ByKind: map[Kind]Counts{}, log: []Failure{tc.f, other}}
		if got := r.ExceptAt(at, peers).Excused; got != tc.want {
			t.Errorf("%d excused of %v, want %d", got, tc.f, tc.want)
		}
	}
}

// Failures beyond those kept count, and can't be excused.
func TestLogIsBounded(t *testing.T) {
	t.Parallel()
	l := &Load{client: &client{}, changed: make(chan struct{}), tally: tally{kinds: map[Kind]*kindTally{New: {}}, workers: map[string]int{}}}
	for range maxLog + 5 {
		l.tally.started++
		l.tally.kinds[New].started++
		l.record(time.Now(), outcome{kind: New, failure: &Failure{Class: Cut, Local: "me"}})
	}
	r := l.Snapshot().Except(map[string]bool{"me": true})
	if r.Excused != maxLog || r.Failures[Cut] != 5 || r.Accounted() != nil || r.Check() == nil {
		t.Errorf("got\n%v", r)
	}
}

// The plain way to quantiles: sort everything.
func TestHistogram(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for _, scale := range []time.Duration{20 * time.Microsecond, time.Millisecond, time.Second, time.Hour} {
		var h histogram
		var all []time.Duration
		for range 10_000 {
			d := time.Duration(rng.ExpFloat64() * float64(scale) / 10)
			h.add(d)
			all = append(all, d)
		}
		slices.Sort(all)
		for _, q := range []float64{.001, .5, .9, .99, .999, 1} {
			exact := all[int(q*10_000)-1]
			got := h.quantile(q)
			if got < exact-time.Microsecond || got > exact+exact/16+time.Microsecond {
				t.Errorf("scale %v: quantile %v is %v, exactly %v", scale, q, got, exact)
			}
		}
		if h.latency().Max != all[len(all)-1] {
			t.Errorf("max is %v, want %v", h.latency().Max, all[len(all)-1])
		}
	}
	var h histogram
	if h.latency() != (Latency{}) {
		t.Errorf("empty: %v", h.latency())
	}
	h.add(-time.Second)         // a clock that was set back
	h.add(300 * 24 * time.Hour) // beyond the last bucket
	if h.quantile(1) > 300*24*time.Hour {
		t.Errorf("got %v", h.quantile(1))
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	good := Config{Addr: "127.0.0.1:80"}
	if err := good.Validate(); err != nil {
		t.Error(err)
	}
	for name, tc := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"no address":      {func(c *Config) { c.Addr = "" }, `Addr: ""`},
		"no port":         {func(c *Config) { c.Addr = "127.0.0.1" }, "Addr"},
		"no path":         {func(c *Config) { c.Addr = "unix:" }, "without a path"},
		"no such kind":    {func(c *Config) { c.Clients = map[Kind]int{77: 1} }, "no such kind: kind(77)"},
		"addresses":       {func(c *Config) { c.Addrs = map[Kind]string{TCP: "127.0.0.1"} }, `Addrs: of kind tcp: "127.0.0.1": want`},
		"address's kind":  {func(c *Config) { c.Addrs = map[Kind]string{77: "127.0.0.1:1"} }, "Addrs: no such kind"},
		"unix' address":   {func(c *Config) { c.Addrs = map[Kind]string{Unix: "unix:/s"} }, "Addrs: kind unix has Config.Unix"},
		"unix datagrams":  {func(c *Config) { c.Addr, c.Clients = "unix:/s", map[Kind]int{UDP: 1} }, `Addrs: of kind udp: "unix:/s": want "host:port"`},
		"negative":        {func(c *Config) { c.Clients = map[Kind]int{Slow: -1, New: 2} }, "-1 of kind slow"},
		"nobody":          {func(c *Config) { c.Clients = map[Kind]int{Slow: 0} }, "none"},
		"rate":            {func(c *Config) { c.Rate = -1 }, "Rate: -1"},
		"all too fast":    {func(c *Config) { c.Rate = 501 }, "make 2004/s"},
		"kept too fast":   {func(c *Config) { c.Clients, c.Rate = map[Kind]int{KeepAlive: 2}, 50_001 }, "make 100002/s: at most 100000/s"},
		"no think time":   {func(c *Config) { c.Think = []time.Duration{time.Second, 0} }, "Think: [1s 0s]"},
		"thinks too fast": {func(c *Config) { c.Clients, c.Think = map[Kind]int{HTTP2: 1}, []time.Duration{time.Microsecond} }, "make 1e+06/s"},
		"no unix socket":  {func(c *Config) { c.Clients = map[Kind]int{Unix: 1} }, "Unix: no path"},
		"timeout":         {func(c *Config) { c.Timeout = 300 * time.Millisecond }, "Timeout: 300ms"},
		"wait":            {func(c *Config) { c.WaitReady = -1 }, "WaitReady"},
		"slow":            {func(c *Config) { c.SlowMS = -1 }, "SlowMS: -1"},
		"chunks":          {func(c *Config) { c.UploadBytes = 3 }, "10 pieces of a body of 3 bytes"},
		"reserved header": {func(c *Config) { c.Header = http.Header{"x-request-id": {"1"}} }, "x-request-id"},
		"path":            {func(c *Config) { c.Path = map[Kind]string{New: "items"} }, `Path: "items" of kind new`},
		"path, space":     {func(c *Config) { c.Path = map[Kind]string{Slow: "/a b"} }, `Path: "/a b" of kind slow`},
		"path, line end":  {func(c *Config) { c.Path = map[Kind]string{New: "/a\r\nX: y"} }, "Path"},
		"path, fragment":  {func(c *Config) { c.Path = map[Kind]string{New: "/a#b"} }, "Path"},
		"path, escape":    {func(c *Config) { c.Path = map[Kind]string{New: "/%zz"} }, "Path"},
		"path's kind":     {func(c *Config) { c.Path = map[Kind]string{77: "/"} }, "Path: no such kind"},
		"host":            {func(c *Config) { c.Host = "a b" }, `Host: "a b"`},
		"host, line end":  {func(c *Config) { c.Host = "a\r\nX: y" }, "Host"},
		"host with path":  {func(c *Config) { c.Host = "a/b" }, "Host"},
		"status":          {func(c *Config) { c.Status = 101 }, "Status: 101"},
		"bound":           {func(c *Config) { c.MaxRequests = -5 }, "MaxRequests: -5"},
	} {
		c := good
		tc.change(&c)
		if err := c.Validate(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: want %q, got: %v", name, tc.want, err)
		}
		if _, err := Start(t.Context(), c); err == nil {
			t.Errorf("%s: Start does not mind", name)
		}
	}
}
