// Package load is strict clients: they load a server while it is restarted, and say
// whether one of them noticed. Package draintest makes a test with a verdict of it.
//
// [Start] begins a [Load]: clients of several kinds ([New], [Slow], [Upload],
// [Stream], [KeepAlive], [Connect], [HTTP2], [WebSocket], [Unix], [GRPC], [TCP], [UDP]) that
// send requests at a fixed rate. [Load.Stop] ends it and returns the [Result]; [Result.Check]
// is nil only if there were requests, each is accounted for and none failed.
//
// The clients are strict in what a usual HTTP client forgives:
//
//   - Nothing is retried. Each request has a connection of its own, made by one
//     connect(2) to one address and written to directly; net/http's Transport, which
//     sends a request again when an idle connection has gone, is not used, other
//     than for single connections (of HTTP/2, of a WebSocket's handshake).
//   - A [KeepAlive] client has one connection for all its requests. One that
//     the server closes between two requests, which is seen at once, or says that it
//     will close, is counted ([Result.ClosedIdle]).
//   - An [HTTP2] client has one connection, too, with requests beside one another. A
//     stream that the server says it has not looked at is a failure.
//   - A [WebSocket] client has one connection, on which every message has to come back
//     as it was sent, and which has to end by a close frame.
//   - A [GRPC] client has a connection as that of HTTP2, with calls that can't be sent again,
//     whose answer has to be one whole message and grpc-status 0.
//   - A [TCP] client has one connection, on which every line has to come back, and a [UDP] one
//     has a socket, to which every datagram has to: once, as it was sent, and nothing else. A
//     datagram that was lost is a failure.
//   - A [Connect] client sends nothing, and the server must end the connection in order.
//   - The load is open loop: requests have an intended time, and latency counts
//     from it. A server that stalls does not slow its clients down and so hide
//     the stall. Where the load could not keep its own rate, it says so
//     ([Result.Behind], [Counts.Missed]).
//   - Each request carries an id in X-Request-Id and the answer must carry the
//     same one. Each upload has a body of its own.
//   - After the answer a connection is read to its end, or until the next request: a
//     byte more is a failure.
//   - Each failure has exactly one [Class].
//
// # The server
//
// The server under test answers 200, with a Content-Length or chunked (the end of
// a body that only the end of the connection tells can't be told from a cut), and
// repeats X-Request-Id on
//
//	GET  /              at once
//	GET  /slow?ms=N     after N milliseconds
//	POST /upload        after the whole body: its length in bytes and its SHA-256 in hex
//	GET  /stream?ms=N   with a body that takes about N milliseconds
//	     /echo          a WebSocket that sends each message back; no X-Request-Id in it
//
// and, for clients of those kinds, has gRPC's health service, and at [Config.Addrs] servers
// that echo lines, or datagrams.
//
// Any other server will do with [Config.Path] and [Config.Plain], as long as its answers
// tell where they end; less can be seen then.
//
// An X-Worker header in an answer says which process it is from; it is counted,
// and can be waited for.
//
// # Concurrency
//
// All methods of Load may be called from any goroutine. A Result is a value that
// nobody else changes.
package load
