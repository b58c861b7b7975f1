package upgrader

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/handover-go/handover/internal/listen"
)

// TestDroppedFile: the file of a socket that this process does without goes when it is
// closed, but not as long as an upgrade may lead to one that serves it.
func TestDroppedFile(t *testing.T) {
	for name, c := range map[string]struct {
		during   bool // it is closed in an upgrade
		replaced bool // which succeeds
		kept     bool
	}{
		"before": {false, true, false},
		"failed": {true, false, false},
		"served": {true, true, true},
	} {
		path := filepath.Join(t.TempDir(), "s")
		s, err := openSocket(listen.Spec{Name: "s", Network: "unix", Addr: path})
		if err != nil {
			t.Fatal(err)
		}
		u := newBare()
		u.dropped = []*Socket{s}
		s.retire()
		there := func() bool { _, err := os.Lstat(path); return !errors.Is(err, fs.ErrNotExist) }
		if !c.during {
			s.Close()
		}
		if err := u.begin(); err != nil {
			t.Fatal(err)
		}
		s.Close()
		if there() != c.during {
			t.Errorf("%s: in an upgrade there is a file: %v", name, there())
		}
		if !c.during { // somebody else's, by now
			ln, err := net.Listen("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
		}
		u.finish(c.replaced)
		if want := c.kept || !c.during; there() != want {
			t.Errorf("%s: afterwards there is a file: %v", name, there())
		}
	}
}

// newBare is an Upgrader that decides, and nothing else.
func newBare() *Upgrader {
	u := &Upgrader{phase: phaseReady, attempt: &attempt{}, replaced: make(chan struct{})}
	u.life, u.quit = context.WithCancelCause(context.Background())
	return u
}
