//go:build linux

package upgrader

import (
	"encoding/json"
	"errors"
	"os"
	"reflect"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/wire"
)

// messageV1 is a line of the succession as the first version knows it.
type messageV1 struct {
	Cmd        string          `json:"cmd"`
	Version    int             `json:"v,omitempty"`
	MinVersion int             `json:"min,omitempty"`
	Generation int             `json:"generation,omitempty"`
	Sockets    []listen.Spec   `json:"sockets,omitempty"`
	More       bool            `json:"more,omitempty"`
	Reason     string          `json:"reason,omitempty"`
	Files      []string        `json:"files,omitempty"`
	State      json.RawMessage `json:"state,omitempty"`
}

var (
	web     = listen.Spec{Name: "http", Network: "tcp", Addr: "127.0.0.1:0"}
	aWorker = []string{"channel:web/1/1/4/4711", "pidfd:web/1/1/4/4711"}
	aState  = `{"v":1,"groups":{"web":{"count":2}}}`
)

// Order in the golden files.
const (
	lineSockets = iota
	lineHello
	linePrepared
	lineFailed
	lineLegacy
	lineCommit
	lineAck
	lineWard // from version 2 on
	lineMore
	lineOutput
)

// null is n descriptors of nothing.
func null(t *testing.T, n int) (files []*os.File) {
	t.Helper()
	for range n {
		f, err := os.Open(os.DevNull)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		files = append(files, f)
	}
	return files
}

// listening is a socket as web describes it.
func listening(t *testing.T) (*Socket, *os.File) {
	t.Helper()
	s, err := openSocket(web)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	f, err := s.dup()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return s, f
}

// line reads one line as it came, with its descriptors.
func line(t *testing.T, c *wire.Conn, files int) []byte {
	t.Helper()
	b, err := c.Read()
	if err != nil {
		t.Fatal(err)
	}
	b = slices.Clone(b)
	fds, err := c.TakeFiles(files)
	if err != nil || c.Pending() != 0 {
		t.Fatalf("%d descriptors and %d more, %v: %s", len(fds), c.Pending(), err, b)
	}
	closeAll(fds)
	return b
}

// TestFormat has both sides say all that they can.
func TestFormat(t *testing.T) {
	got := make([][]byte, lineOutput+1)
	s, f := listening(t)

	// What the old process says.
	p, c := pair(t)
	u := &Upgrader{generation: 4, sockets: map[string]*Socket{"http": s}}
	files := null(t, 2)
	legacy := Legacy{State: json.RawMessage(aState), Files: []NamedFile{{aWorker[0], files[0]}, {aWorker[1], files[1]}}}
	if err := errors.Join(u.sendSockets(c), sendLegacy(c, legacy)); err != nil {
		t.Fatal(err)
	}
	got[lineSockets] = line(t, p.conn, 1)
	got[lineLegacy] = line(t, p.conn, 2)
	got[lineCommit] = line(t, p.conn, 0)
	got[lineMore] = golden.JSON(t, message{Cmd: cmdSockets, Version: successionVersion, MinVersion: successionMin, Generation: 5, More: true})
	p.conn.Close()

	// And the new one.
	p, c = pair(t)
	send(t, c, message{Cmd: cmdSockets, Version: successionVersion, Generation: 5, Sockets: []entry{{Spec: web}}}, f)
	send(t, c, message{Cmd: cmdCommit})
	if err := p.meet(); err != nil {
		t.Fatal(err)
	}
	got[lineHello] = line(t, c, 0)
	next := &Upgrader{pred: p}
	ward := Ward{Pid: 4711, Pidfd: null(t, 1)[0], Signal: syscall.SIGTERM, Timeout: 25 * time.Second}
	if err := next.Entrust(ward); err != nil {
		t.Fatal(err)
	}
	got[lineWard] = line(t, c, 1)
	ward.Output = null(t, 2)
	if err := next.Entrust(ward); err != nil {
		t.Fatal(err)
	}
	got[lineOutput] = line(t, c, 3)
	if _, err := p.awaitCommit(t.Context()); err != nil {
		t.Fatal(err)
	}
	got[linePrepared] = line(t, c, 0)
	got[lineAck] = line(t, c, 0)
	p.fail(errors.New("the database has no tables"))
	got[lineFailed] = line(t, c, 0)
	for _, s := range p.sockets {
		s.Close()
	}
	p.close()
	golden.Check(t, "succession.jsonl", got)
}

// oldSays has an old process say three lines, and returns what the new one makes of
// them.
func oldSays(t *testing.T, sockets, legacy, commit []byte) (*predecessor, Legacy) {
	t.Helper()
	p, c := pair(t)
	_, f := listening(t)
	send(t, c, json.RawMessage(sockets), f)
	if err := p.meet(); err != nil {
		t.Fatal(err)
	}
	for spec, s := range p.sockets {
		if spec != web || s.Addr() == nil {
			t.Errorf("%v at %v", spec, s.Addr())
		}
		s.Close()
	}
	if len(p.sockets) != 1 || p.generation != 5 {
		t.Errorf("%d sockets, generation %d", len(p.sockets), p.generation)
	}
	send(t, c, json.RawMessage(`{"cmd":"of a later version"}`))
	send(t, c, json.RawMessage(legacy), null(t, 2)...)
	send(t, c, json.RawMessage(commit))
	l, err := p.awaitCommit(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	p.close()
	t.Cleanup(l.Close)
	return p, l
}

// TestFormerFormat: each side understands the first version's other.
func TestFormerFormat(t *testing.T) {
	t.Parallel()
	now, former := golden.Lines(t, "succession.jsonl"), golden.Lines(t, "succession.v1.jsonl")
	for version, lines := range map[int][][]byte{1: former, successionVersion: now, successionVersion + 1: later(now)} {
		p, l := oldSays(t, lines[lineSockets], lines[lineLegacy], lines[lineCommit])
		if want := min(version, successionVersion); p.version != want || len(l.Files) != 2 ||
			l.Files[0].Name != aWorker[0] || l.Files[1].Name != aWorker[1] || string(l.State) != aState {
			t.Errorf("version %d, legacy %+v", p.version, l)
		}
		for i, want := range map[int]message{
			linePrepared: {Cmd: cmdPrepared}, lineAck: {Cmd: cmdAck},
			lineHello:  {Cmd: cmdHello, Version: min(version, successionVersion), MinVersion: 1},
			lineFailed: {Cmd: cmdFailed, Reason: "the database has no tables"},
		} {
			if got := golden.Read[message](t, lines[i]); !reflect.DeepEqual(got, want) {
				t.Errorf("%s means\n%+v, not\n%+v", lines[i], got, want)
			}
		}
	}
}

func later(lines [][]byte) (all [][]byte) {
	for _, line := range lines {
		all = append(all, golden.Later(line, "cmd", "sockets", "name", "files", "state", "reason"))
	}
	return all
}

// TestReadByFormer: the first version finds in today's messages what it knows.
func TestReadByFormer(t *testing.T) {
	t.Parallel()
	now := golden.Lines(t, "succession.jsonl")
	for _, lines := range [][][]byte{now, later(now)} {
		for i, want := range []messageV1{
			{Cmd: "sockets", Version: 2, MinVersion: 1, Generation: 5, Sockets: []listen.Spec{web}},
			{Cmd: "hello", Version: 2, MinVersion: 1},
			{Cmd: "prepared"},
			{Cmd: "failed", Reason: "the database has no tables"},
			{Cmd: "legacy", Files: aWorker},
			{Cmd: "commit", State: json.RawMessage(aState)},
			{Cmd: "ack"},
		} {
			if got := golden.Read[messageV1](t, lines[i]); !reflect.DeepEqual(got, want) {
				t.Errorf("%s means\n%+v, not\n%+v", lines[i], got, want)
			}
		}
	}
}

// TestWardUnsaid: descriptors go only to a predecessor who knows what comes with them.
func TestWardUnsaid(t *testing.T) {
	t.Parallel()
	p, c := pair(t)
	p.version = versionWards - 1
	if err := (&Upgrader{pred: p}).Entrust(Ward{Pidfd: null(t, 1)[0]}); err != nil {
		t.Fatal(err)
	}
	p.fail(errors.New("why"))
	if m := expect(t, c, cmdFailed); c.Pending() != 0 {
		t.Errorf("%+v with %d descriptors before it", m, c.Pending())
	}
	p.conn.Close()
}
