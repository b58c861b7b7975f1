package drain

import (
	"cmp"
	"slices"
	"time"
)

// Conn is a connection that is open.
type Conn struct {
	Peer  string        // the client's address, if it has one
	State string        // new, idle, active or hijacked; open, where the server is no *http.Server
	Age   time.Duration // since it was accepted, or taken from another process
}

// Open returns up to n of the connections that are open: what keeps a drain from ending.
// Those come first that are in use, and of these the oldest.
func (d *Drainer) Open(n int) []Conn {
	conns := d.open()
	slices.SortFunc(conns, func(a, b *conn) int {
		return cmp.Or(cmp.Compare(boolInt(a.isIdle()), boolInt(b.isIdle())), a.born.Compare(b.born))
	})
	list := make([]Conn, 0, min(n, len(conns)))
	for _, c := range conns[:cap(list)] {
		list = append(list, Conn{Peer: remote(c), State: c.state(), Age: time.Since(c.born)})
	}
	return list
}

func boolInt(b bool) int {
	if b {
		return 1
	}
	return 0
}
