package metrics

import (
	"reflect"
	"testing"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/golden"
)

// today is a book with everything in it.
func today() book {
	b := newBook()
	b.Clock = clock.Reading{Time: at(9), Up: 1234567890}
	b.Rolling, b.Served = at(3), true
	b.Upgrades["done"], b.Upgrades["failed"] = 7, 2
	b.Upgrade.observe(1)
	g := b.group("web")
	g.Dead = counts{Accepted: 100, MovedIn: 20, MovedOut: 30, Cut: 1}
	g.Restarts["crash"] = 3
	g.Failures, g.Seen = 4, 2
	g.Start.observe(1)
	g.Drain.observe(1)
	b.Groups["web"] = g
	b.Workers["web/1/2/4"] = worker{Group: "web", Counts: counts{Accepted: 5, MovedIn: 1, MovedOut: 2, Cut: 3}, Draining: at(5)}
	return b
}

// TestFormat: what travels to the next parent, which may be of another version.
func TestFormat(t *testing.T) {
	golden.Check(t, "book.json", [][]byte{golden.JSON(t, today())})
}

// TestReadFormats: it is read as it was meant, also if a later version has more to say.
func TestReadFormats(t *testing.T) {
	line := golden.Lines(t, "book.json")[0]
	want := newBook()
	if err := want.take(golden.JSON(t, today())); err != nil {
		t.Fatal(err)
	}
	for _, line := range [][]byte{line, golden.Later(line, "groups", "workers", "dead", "startSeconds", "counts", "upgrades", "accepted")} {
		b := newBook()
		if err := b.take(line); err != nil || !reflect.DeepEqual(b, want) {
			t.Errorf("%v: %s means\n%+v, not\n%+v", err, line, b, want)
		}
	}
}
