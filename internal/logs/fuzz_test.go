package logs

import (
	"bytes"
	"testing"
)

// FuzzRead: whatever the parent before has written, the bounds and the order are kept, and what
// is remembered can be read by the next.
func FuzzRead(f *testing.F) {
	var b Book
	b.Add(t0, worker(1), "stdout", "a line")
	b.Add(t0, worker(2), "stderr", "another")
	b.End(worker(2))
	var text bytes.Buffer
	if err := b.Write(&text); err != nil {
		f.Fatal(err)
	}
	f.Add(text.Bytes())
	f.Add([]byte(`{"last":-1,"logs":[{"group":"web","n":[3,2,9223372036854775807],"ms":[0,-1],"streams":"oeo","text":"a\nb\nc"},{"dead":true,"n":[1]}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var b, next Book
		b.Add(t0, worker(1), "stdout", "mine")
		if err := b.Read(bytes.NewReader(text)); err != nil && len(listed(&b)) != 1 {
			t.Fatalf("%v, and there are %d lines", err, len(listed(&b)))
		}
		check(t, &b)
		if b.last > maxNumber {
			return // where nobody comes to in a life, nothing is promised
		}
		var again bytes.Buffer
		if err := b.Write(&again); err != nil {
			t.Fatal(err)
		}
		if err := next.Read(&again); err != nil || len(listed(&next)) != len(listed(&b)) {
			t.Fatalf("%v: %d lines of %d", err, len(listed(&next)), len(listed(&b)))
		}
	})
}
