// Package protocols tests what a drain does with protocols and servers that others wrote:
// gRPC, WebSocket in a browser, UDP, fasthttp, and listeners that wrap another. Its examples
// are what a program needs to serve them; docs/protocols.md tells about each.
//
//	cd drain/protocols && go test .
//
// It is a module of its own: the libraries are needed here, and nobody who uses handover
// is to get them, not even as a line in go.sum.
package protocols
