package message

import (
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"testing"

	"go.uber.org/goleak"

	"github.com/handover-go/handover/internal/wire"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLink notes what an endpoint says. It is called with the endpoint's lock held.
type fakeLink struct {
	e     *Endpoint
	sent  []wire.Message
	files [][]*os.File
	said  []string // "done N WHY" and "again N"
	data  map[int]json.RawMessage
	text  map[int]string
	out   chan struct{} // what Done returns
}

func newFake() *fakeLink {
	l := &fakeLink{data: map[int]json.RawMessage{}, text: map[int]string{}}
	l.e = New(l)
	return l
}

func (l *fakeLink) Message(m wire.Message, files []*os.File) {
	l.sent = append(l.sent, m)
	l.files = append(l.files, files)
}

func (l *fakeLink) Done(r wire.Result) (out <-chan struct{}) {
	l.said = append(l.said, fmt.Sprint("done ", r.N, " ", r.Why))
	l.data[r.N], l.text[r.N] = r.Data, r.Text
	if r.Cmd != wire.CmdDone {
		panic(r.Cmd)
	}
	return l.out
}

func (l *fakeLink) Again(n int) { l.said = append(l.said, fmt.Sprint("again ", n)) }

// heard is what the endpoint has said since the last call.
func (l *fakeLink) heard() []string {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	said := l.said
	l.said = nil
	return said
}

func (l *fakeLink) count() int {
	l.e.mu.Lock()
	defer l.e.mu.Unlock()
	return len(l.sent)
}

// receive gives the endpoint a message of a worker of group "w".
func (l *fakeLink) receive(n, from int, typ string, files ...*os.File) {
	l.e.Receive(wire.Message{N: n, From: wire.Sender{Group: "w", Slot: from, ID: from, Generation: 1}, Type: typ, Data: json.RawMessage(fmt.Sprint(n))}, files)
}

func (l *fakeLink) want(t *testing.T, want ...string) {
	t.Helper()
	if got := l.heard(); !slices.Equal(got, want) {
		t.Errorf("said %q, want %q", got, want)
	}
}

// pipes are both ends of n pipes, in one list.
func pipes(t *testing.T, n int) (list []*os.File) {
	t.Helper()
	for range n {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		list = append(list, r, w)
		t.Cleanup(func() { r.Close(); w.Close() })
	}
	return list
}

// isOpen reports whether a file is open.
func isOpen(f *os.File) bool {
	_, err := f.Stat()
	return err == nil
}

// wantFDs fails the test if it leaves descriptors open, or closes others.
func wantFDs(t *testing.T) {
	t.Helper()
	pipes(t, 1) // the poller opens its own at its first use
	count := func() int {
		names, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Skip("no /proc/self/fd to count descriptors in")
		}
		return len(names)
	}
	before := count()
	t.Cleanup(func() {
		if after := count(); after != before {
			t.Errorf("%d descriptors open, %d before the test", after, before)
		}
	})
}
