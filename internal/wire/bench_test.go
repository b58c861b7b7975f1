//go:build linux || darwin || freebsd

package wire

import (
	"encoding/json"
	"os"
	"testing"
	"time"
)

// BenchmarkRoundTrip sends a typical message and waits for one back, and reports
// how many times as long that takes as writing and reading the same bytes on a
// bare socketpair through the poller ("x/raw"), in the same run.
func BenchmarkRoundTrip(b *testing.B) {
	m := msg{Cmd: "NODE_HANDOVER_STATE", From: 7, N: 12345, Pad: "serving"}
	line, err := json.Marshal(m)
	noErr(b, err)

	fa, fb, err := Pair()
	noErr(b, err)
	raw := echo(func() error {
		buf := make([]byte, len(line)+1)
		if _, err := fb.Read(buf); err != nil {
			return err
		}
		_, err := fb.Write(buf)
		return err
	})
	buf := append(line, '\n')
	base := timed(b, func() error {
		if _, err := fa.Write(buf); err != nil {
			return err
		}
		_, err := fa.Read(buf)
		return err
	})
	fa.Close()
	<-raw
	fb.Close()

	x, y := newPair(b)
	conn := echo(func() error {
		if _, err := y.Read(); err != nil {
			return err
		}
		return y.Send(m)
	})
	b.ReportAllocs()
	start, n := time.Now(), 0
	for b.Loop() {
		noErr(b, x.Send(m))
		if _, err := x.Read(); err != nil {
			b.Fatal(err)
		}
		n++
	}
	b.ReportMetric(float64(time.Since(start))/float64(n)/float64(base), "x/raw")
	x.Close()
	<-conn
}

// BenchmarkSendFile passes one descriptor and takes it.
func BenchmarkSendFile(b *testing.B) {
	x, y := newPair(b)
	f, err := os.Open(os.DevNull)
	noErr(b, err)
	defer f.Close()
	b.ReportAllocs()
	for b.Loop() {
		noErr(b, x.Send(1, f))
		if _, err := y.Read(); err != nil {
			b.Fatal(err)
		}
		files, err := y.TakeFiles(1)
		noErr(b, err)
		files[0].Close()
	}
}

// echo calls step until it fails, and then closes what it returns.
func echo(step func() error) <-chan struct{} {
	done := make(chan struct{})
	go func() {
		defer close(done)
		for step() == nil {
		}
	}()
	return done
}

// timed returns how long one call of step takes.
func timed(b *testing.B, step func() error) time.Duration {
	const n = 20000
	for range n / 10 {
		noErr(b, step())
	}
	start := time.Now()
	for range n {
		noErr(b, step())
	}
	return time.Since(start) / n
}
