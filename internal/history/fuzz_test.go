package history

import (
	"bytes"
	"testing"
)

// FuzzRead: whatever the parent before has written, the bounds and the order are kept, and what
// is remembered can be read by the next.
func FuzzRead(f *testing.F) {
	for _, e := range full() {
		var l Log
		l.Add(e)
		var b bytes.Buffer
		if err := l.Write(&b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	f.Add([]byte(`{"last":-1,"entries":[{"n":9223372036854775807,"death":{}},{"n":1,"upgrade":{}},{"n":-5,"parent":{}}]}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		var l, next Log
		l.Add(dead(1, 1))
		if err := l.Read(bytes.NewReader(text)); err != nil && len(l.Entries()) != 1 {
			t.Fatalf("%v, and there are %d entries", err, len(l.Entries()))
		}
		check(t, &l)
		if l.last > maxNumber {
			return // where nobody comes to in a life, nothing is promised
		}
		var b bytes.Buffer
		if err := l.Write(&b); err != nil {
			t.Fatal(err)
		}
		if err := next.Read(&b); err != nil || len(next.Entries()) != len(l.Entries()) {
			t.Fatalf("%v: %d entries of %d", err, len(next.Entries()), len(l.Entries()))
		}
	})
}
