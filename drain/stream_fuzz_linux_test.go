package drain

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"
)

// FuzzStream: whatever is sent, in whatever pieces, moved in between or not, and ended half or
// whole, is echoed once and in order, whoever does it.
func FuzzStream(f *testing.F) {
	for _, tcp := range []bool{false, true} {
		for seed := range byte(12) {
			steps := make([]byte, 60)
			for i := range steps {
				sum := sha256.Sum256([]byte{seed, byte(i)})
				steps[i] = sum[0]
			}
			f.Add(steps, tcp)
		}
		f.Add(bytes.Repeat([]byte{1, 0xff}, 20), tcp)
		f.Add(bytes.Repeat([]byte{0xff}, 10), tcp)
	}
	f.Fuzz(func(t *testing.T, steps []byte, tcp bool) {
		network := "unix"
		if tcp {
			network = "tcp"
		}
		r := newRelay(t, network)
		// The state is a piece that was read and not written yet, and how many bytes there were.
		echo := func(ctx context.Context, c *Stream) {
			var total int
			var rest []byte
			if s := c.State(); s != nil {
				total, rest = int(s[0])|int(s[1])<<8|int(s[2])<<16, s[3:]
			}
			for b := make([]byte, 100); ; {
				n, err := c.Read(b[:1+total%len(b)])
				total += n
				rest = append(rest, b[:n]...)
				switch {
				case errors.Is(err, ErrLeave):
					err := c.Move(append([]byte{byte(total), byte(total >> 8), byte(total >> 16)}, rest...))
					if err == nil {
						return
					}
					if !errors.Is(err, ErrNotNow) {
						t.Errorf("Move: %v", err)
						return
					}
				case err != nil:
					fmt.Fprintf(c, "%s|%d %v", rest, total, err)
					_ = c.CloseWrite()
					return
				case total%3 == 0: // else it waits for more
					c.Write(rest)
					rest = nil
				}
			}
		}
		g := r.streams(echo)
		c := dial(t, r.ln.Addr())
		_ = c.SetDeadline(time.Now().Add(20 * time.Second))
		var got []byte
		read := inBackground(func() { got, _ = io.ReadAll(c.Conn) })
		var sent []byte
		for i, s := range steps[:min(len(steps), 100)] {
			if s >= 0xc0 && len(r.gens) < 12 {
				next := r.streams(echo)
				g.retire()
				if s&1 != 0 { // else the next step does not wait for it
					<-g.Done()
				}
				g = next
				continue
			}
			piece := bytes.Repeat([]byte{'a' + byte(i%26)}, int(s))
			sent = append(sent, piece...)
			c.send(string(piece))
		}
		_ = c.Conn.(interface{ CloseWrite() error }).CloseWrite()
		<-read
		if want := fmt.Sprintf("%s|%d EOF", sent, len(sent)); string(got) != want {
			same := 0
			for same < min(len(got), len(want)) && got[same] == want[same] {
				same++
			}
			t.Errorf("got %d bytes, want %d, and the first %d are right: %.50q, want %.50q", len(got), len(want), same, got[same:], want[same:])
		}
		g.Drain(0)
		moved := 0
		for _, g := range r.gens {
			<-g.Done()
			rep := g.Report()
			moved += rep.Moved
			if rep.Cut+rep.ClosedIdle != 0 {
				t.Errorf("%+v", rep)
			}
		}
	})
}
