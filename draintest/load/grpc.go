package load

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// grpcHead is how long the head of a gRPC message is: whether it is compressed, and its length.
const grpcHead = 5

// emptyMessage is one without a field, which a request of any type may be. It can't be sent
// again: what it is does not tell net/http how.
func emptyMessage() io.Reader { return struct{ io.Reader }{bytes.NewReader(make([]byte, grpcHead))} }

// messages takes in the body of an answer: messages, each with a head.
type messages struct {
	whole, size int64
	compressed  bool
	head        []byte // of the one that has begun, as far as it has come
	left        uint32 // bytes that are missing of it
}

func (m *messages) Write(p []byte) (int, error) {
	n := len(p)
	m.size += int64(n)
	for len(p) > 0 {
		if m.left > 0 {
			part := min(uint64(m.left), uint64(len(p)))
			m.left -= uint32(part)
			p = p[part:]
		} else {
			part := min(grpcHead-len(m.head), len(p))
			m.head = append(m.head, p[:part]...)
			p = p[part:]
			if len(m.head) < grpcHead {
				break
			}
			m.compressed = m.compressed || m.head[0] != 0
			m.left = binary.BigEndian.Uint32(m.head[1:])
		}
		if m.left == 0 {
			m.whole++
			m.head = m.head[:0]
		}
	}
	return n, nil
}

// begun tells whether the last message is not whole.
func (m *messages) begun() bool { return len(m.head) > 0 }

// readCall is read for a call's answer.
func (x *exchange) readCall(resp *http.Response, classify func(err error, before, within string) (Class, string)) (Class, string) {
	x.failure.Worker = resp.Header.Get(x.cfg.WorkerHeader)
	id := resp.Header.Get("X-Request-Id")
	if id != "" && id != x.failure.ID {
		return CrossTalk, "answer to request " + id
	}
	x.unmatched = id == ""
	if resp.StatusCode != http.StatusOK { // a proxy's
		body, _ := io.ReadAll(io.LimitReader(resp.Body, maxKept))
		return Status, fmt.Sprintf("%s: %.200q", resp.Status, body)
	}
	if kind := resp.Header.Get("Content-Type"); !isGRPC(kind) {
		return Body, fmt.Sprintf("not gRPC: an answer of type %.100q", kind)
	}
	var m messages
	if _, err := io.Copy(&m, resp.Body); err != nil {
		where := fmt.Sprintf("after %d bytes of the answer's body", m.size)
		return classify(err, where, where)
	}
	x.answered = time.Now()
	end := resp.Trailer
	if end.Get("Grpc-Status") == "" {
		end = resp.Header // of an answer that is nothing but its end
	}
	return m.judge(end)
}

// judge says what is wrong with an answer that ends so.
func (m *messages) judge(end http.Header) (Class, string) {
	switch status := end.Get("Grpc-Status"); {
	case status == "":
		return Cut, fmt.Sprintf("the answer ended without grpc-status, after %d bytes", m.size)
	case status != "0":
		text, err := url.PathUnescape(end.Get("Grpc-Message"))
		if err != nil {
			text = end.Get("Grpc-Message")
		}
		return Status, fmt.Sprintf("grpc-status %.20s (%s): %.200q", status, grpcName(status), text)
	case m.begun():
		return Cut, fmt.Sprintf("the answer ended inside a message, after %d bytes", m.size)
	case m.whole == 0:
		return Body, "grpc-status 0, and no message"
	case m.whole > 1:
		return Duplicated, fmt.Sprintf("%d messages in answer to one", m.whole)
	case m.compressed:
		return Body, "a compressed message, which was not asked for"
	}
	return 0, ""
}

// isGRPC tells whether a Content-Type is gRPC's: alone, or with how messages are encoded.
func isGRPC(kind string) bool {
	rest, ok := strings.CutPrefix(kind, "application/grpc")
	return ok && (rest == "" || rest[0] == '+' || rest[0] == ';')
}

var grpcNames = [...]string{"OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND",
	"ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE",
	"UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"}

// grpcName is what gRPC calls a status.
func grpcName(status string) string {
	if n, err := strconv.Atoi(status); err == nil && n >= 0 && n < len(grpcNames) {
		return grpcNames[n]
	}
	return "no such status"
}
