//go:build !unix

package drain

import "net"

// readable tells whether bytes wait in a connection's socket. Here it can't be seen.
func readable(net.Conn) bool { return false }

func acceptable(net.Listener) bool { return false }

func writable(net.Conn) bool { return false }
