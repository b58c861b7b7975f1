//go:build linux

package workerset

import (
	"encoding/json"
	"net/netip"
	"testing"

	"github.com/handover-go/handover/internal/wire"
)

// TestFit: which socket a program of cluster gets, that asks as Node 20 does.
func TestFit(t *testing.T) {
	at := func(name, kind, addr string) bound {
		return bound{name: name, kind: kind, addr: netip.MustParseAddrPort(addr)}
	}
	sockets := []bound{
		at("local", "tcp", "127.0.0.1:3000"), at("all", "tcp", "[::]:4000"), at("one of 4000", "tcp", "127.0.0.1:4000"),
		at("six", "tcp", "[::1]:3000"), {name: "path", kind: "unix", path: "/run/shop.sock"}, {name: "abstract", kind: "unix", path: "\x00shop"},
		at("dns", "udp", "0.0.0.0:53"), at("dns6", "udp", "[::]:53"), at("mapped", "tcp", "[::ffff:10.0.0.1]:5000"), {name: "file"},
	}
	for _, c := range []struct{ query, name string }{
		// listen(port): of everywhere, what is bound to everywhere goes first.
		{`{"address":null,"port":4000,"addressType":4}`, "all"},
		{`{"address":null,"port":3000,"addressType":4}`, "local"},
		{`{"address":"0.0.0.0","port":4000,"addressType":4}`, "all"},
		{`{"address":"::","port":3000,"addressType":6}`, "local"},
		{`{"address":"","port":3000}`, "local"},
		{`{"address":null,"port":3001,"addressType":4}`, ""},
		// listen(port, host): no more than that address.
		{`{"address":"127.0.0.1","port":3000,"addressType":4}`, "local"},
		{`{"address":"127.0.0.1","port":4000,"addressType":4}`, "one of 4000"},
		{`{"address":"::1","port":3000,"addressType":6}`, "six"},
		{`{"address":"::1","port":4000,"addressType":6}`, ""},
		{`{"address":"10.0.0.1","port":5000,"addressType":4}`, "mapped"},
		{`{"address":"shop.example","port":3000,"addressType":4}`, ""},
		// listen(0): the first, the second.
		{`{"address":null,"port":0,"addressType":4,"index":0}`, "local"},
		{`{"address":null,"port":0,"addressType":4,"index":1}`, "all"},
		{`{"address":"127.0.0.1","port":0,"addressType":4,"index":1}`, "one of 4000"},
		{`{"address":null,"port":0,"addressType":4,"index":5}`, ""},
		{`{"address":null,"port":0,"addressType":4,"index":-1}`, ""},
		// listen(path).
		{`{"address":"/run/shop.sock","port":-1,"addressType":-1}`, "path"},
		{`{"address":"\u0000shop","port":-1,"addressType":-1}`, "abstract"},
		{`{"address":"/run/other.sock","port":-1,"addressType":-1}`, ""},
		{`{"address":null,"port":-1,"addressType":-1}`, ""},
		// dgram's bind.
		{`{"address":"0.0.0.0","port":53,"addressType":"udp4","fd":-1}`, "dns"},
		{`{"address":"::","port":53,"addressType":"udp6","fd":-1}`, "dns6"},
		{`{"address":"127.0.0.1","port":53,"addressType":"udp4","fd":-1}`, ""},
		{`{"address":"0.0.0.0","port":3000,"addressType":"udp4","fd":-1}`, ""},
		// listen({fd}).
		{`{"address":null,"port":null,"addressType":null,"fd":3}`, "local"},
		{`{"address":null,"port":null,"addressType":null,"fd":7}`, "path"},
		{`{"address":null,"port":null,"addressType":null,"fd":12}`, ""},
		{`{"address":null,"port":null,"addressType":null,"fd":13}`, ""},
		{`{"address":null,"port":null,"addressType":null,"fd":0}`, ""},
	} {
		var q wire.ClusterQuery
		if err := json.Unmarshal([]byte(c.query), &q); err != nil {
			t.Fatal(err)
		}
		b, ok := fit(q, sockets)
		if b.name != c.name || ok != (c.name != "") {
			t.Errorf("%s gets %q, %v, not %q", c.query, b.name, ok, c.name)
		}
	}
}
