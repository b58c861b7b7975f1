package snapshot

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
)

func file(t testing.TB) *os.File {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestWrites(t *testing.T) {
	f := file(t)
	if got := Read(f); got != nil {
		t.Errorf("%q", got)
	}
	w := NewWriter(f)
	for i, text := range []string{"one", "", strings.Repeat("long", 10_000), "short"} {
		if i == 2 {
			w = NewWriter(f) // another process goes on
		}
		if err := w.Write([]byte(text)); err != nil {
			t.Fatal(err)
		}
		if got := Read(f); string(got) != text || got == nil {
			t.Errorf("%q, not %q", got, text)
		}
	}
	if err := w.Write(make([]byte, MaxText+1)); err == nil {
		t.Error("too long, and taken")
	}
	if got := Read(f); string(got) != "short" {
		t.Errorf("%q", got)
	}
}

// TestCut: whatever part of the next text was written, the one before is read, or the next
// one whole.
func TestCut(t *testing.T) {
	f := file(t)
	w := NewWriter(f)
	for i := range 3 {
		if err := w.Write(fmt.Appendf(nil, "the %d one", i)); err != nil {
			t.Fatal(err)
		}
	}
	before := bytesOf(t, f)
	if err := w.Write([]byte("the very next one")); err != nil {
		t.Fatal(err)
	}
	after := bytesOf(t, f)
	// The order is that of Write: first the text, then its header.
	text, head := place(4)
	var at []int64
	for i := range int64(len("the very next one")) {
		at = append(at, text+i)
	}
	for i := range int64(header) {
		at = append(at, head+i)
	}
	half := file(t)
	b := bytes.Clone(before)
	for n, i := range at {
		if grow := int(i) + 1 - len(b); grow > 0 {
			b = append(b, make([]byte, grow)...)
		}
		b[i] = after[i]
		if _, err := half.WriteAt(b, 0); err != nil {
			t.Fatal(err)
		}
		want := "the 2 one"
		if n == len(at)-1 {
			want = "the very next one"
		}
		if got := string(Read(half)); got != want && (got != "the very next one" || n < len(at)-8) {
			t.Fatalf("after %d bytes: %q", n+1, got)
		}
	}
}

func bytesOf(t *testing.T, f *os.File) []byte {
	t.Helper()
	b, err := io.ReadAll(io.NewSectionReader(f, 0, 1<<40))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(nil), []byte("text"))
	f.Fuzz(func(t *testing.T, heads, text []byte) {
		file := file(t)
		if _, err := file.WriteAt(heads[:min(len(heads), headers)], 0); err != nil {
			t.Fatal(err)
		}
		if _, err := file.WriteAt(text, headers); err != nil {
			t.Fatal(err)
		}
		Read(file)
		if err := NewWriter(file).Write(text); err != nil {
			t.Fatal(err)
		}
	})
}
