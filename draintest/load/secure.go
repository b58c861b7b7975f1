package load

import (
	"cmp"
	"context"
	"crypto/tls"
	"net"
	"time"
)

// secure makes TLS of a connection: what is said over it is HTTP/1.1, or HTTP/2 if the kind
// is that, or gRPC. The connection stays the caller's if it fails.
func (c *client) secure(conn net.Conn, k Kind, deadline time.Time) (net.Conn, Class, string) {
	cfg := c.cfg.TLS.Clone()
	proto := "http/1.1"
	if k.streams() {
		proto = "h2"
	}
	cfg.NextProtos = []string{proto}
	host, _, err := net.SplitHostPort(c.targets[k].host)
	if err != nil {
		host = c.targets[k].host
	}
	cfg.ServerName = cmp.Or(cfg.ServerName, host)
	ctx, cancel := context.WithDeadline(context.Background(), deadline)
	defer cancel()
	secure := tls.Client(conn, cfg)
	if err := secure.HandshakeContext(ctx); err != nil {
		class := ioClass(err, false)
		if class == Other {
			class = Handshake
		}
		return nil, class, "TLS handshake: " + err.Error()
	}
	// A server that knows nothing of ALPN speaks HTTP/1.1.
	if got := secure.ConnectionState().NegotiatedProtocol; k.streams() && got != proto {
		return nil, Handshake, "the server does not speak HTTP/2 over TLS (ALPN)"
	}
	return secure, 0, ""
}
