package workerset

import (
	"net"
	"net/netip"
	"testing"
)

// TestDiagnose: the kernel tells of connections, and of nothing else.
func TestDiagnose(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		c, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		ours, theirs := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		for _, q := range []struct {
			name          string
			local, remote netip.AddrPort
			has, ok       bool
		}{
			{"our end", ours, theirs, true, true},
			{"the end that nobody has accepted", theirs, ours, false, true},
			{"nobody's", theirs, netip.AddrPortFrom(ours.Addr(), ours.Port()^1), false, false},
			{"no port", netip.AddrPortFrom(ours.Addr(), 0), theirs, false, false},
		} {
			if inode, ok := diagnose(q.local, q.remote); ok != q.ok || (inode != 0) != q.has {
				t.Errorf("%s, %s: %d, %v", addr, q.name, inode, ok)
			}
		}
	}
}

func FuzzDiagInode(f *testing.F) {
	f.Add([]byte{})
	f.Add(make([]byte, diagAnswer))
	f.Fuzz(func(t *testing.T, b []byte) {
		if inode, ok := diagInode(b); !ok && inode != 0 {
			t.Error(inode)
		}
	})
}
