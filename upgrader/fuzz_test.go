//go:build linux

package upgrader

import (
	"encoding/json"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// FuzzSuccession: whatever a predecessor says, what comes is a commit, or an error that leaves
// nothing open.
func FuzzSuccession(f *testing.F) {
	for _, seed := range []string{
		`{"cmd":"commit","state":{"a":1}}`,
		`{"cmd":"later"}` + "\n" + `{"cmd":"legacy","files":[]}` + "\n" + `{"cmd":"commit"}`,
		`{"cmd":"legacy","files":["a","b"]}`,
		`{"cmd":"commit","files":["state"]}`,
		`{"cmd":"sockets","v":2,"min":1,"generation":3}` + "\n" + `{"cmd":"commit","state":[]}`,
		`{"cmd":"sockets","min":99}`,
		`{"cmd":"sockets","generation":-1,"more":true}`,
		"null",
	} {
		f.Add([]byte(seed + "\n"))
	}
	f.Fuzz(func(t *testing.T, said []byte) {
		a, b, err := wire.Pair()
		if err != nil {
			t.Fatal(err)
		}
		conn, err := wire.NewConn(a)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		written := make(chan struct{})
		go func() {
			defer close(written)
			_, _ = b.Write(said) // until nobody reads any more
			b.Close()
		}()
		p := newPredecessor(conn)
		if err := p.inherit(); err == nil && len(p.sockets) > 0 {
			t.Errorf("there are sockets: %v", p.sockets)
		}
		l, err := receiveLegacy(conn)
		switch {
		case err != nil && (len(l.Files) > 0 || l.State != nil):
			t.Errorf("%v, and yet there is %+v", err, l)
		case err == nil && l.State != nil && !json.Valid(l.State):
			t.Errorf("a state that is none: %q", l.State)
		}
		l.Close()
		conn.Close()
		<-written
	})
}
