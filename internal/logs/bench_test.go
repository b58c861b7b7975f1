package logs

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
)

// BenchmarkTravel is what a full memory takes on its way to the next parent.
func BenchmarkTravel(b *testing.B) {
	var book Book
	for i := range 100_000 {
		book.Add(t0, worker(i%64), "stdout", fmt.Sprint(i, strings.Repeat(" <text>", 12)))
	}
	for b.Loop() {
		var text bytes.Buffer
		var next Book
		if err := book.Write(&text); err != nil {
			b.Fatal(err)
		}
		if err := next.Read(&text); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(book.size), "bytes")
}

// BenchmarkAdd is what a line takes that nobody follows.
func BenchmarkAdd(b *testing.B) {
	var book Book
	text := strings.Repeat("x", 100)
	for b.Loop() {
		book.Add(t0, worker(1), "stdout", text)
	}
}
