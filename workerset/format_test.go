//go:build linux

package workerset

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/clock"
	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/launch"
	"github.com/handover-go/handover/internal/lifecycle"
	"github.com/handover-go/handover/internal/router"
	"github.com/handover-go/handover/internal/sdnotify"
	"github.com/handover-go/handover/internal/wire"
)

// at is a time in the golden files.
func at(hour, min, sec int) time.Time { return time.Date(2024, 5, 6, hour, min, sec, 0, time.UTC) }

const (
	lineHalf = `{"cmd":"NODE_HANDOVER_STATE","v":1`
	ofWeb1   = "web/1/2/4/4711"
	ofWeb2   = "web/2/1/4/4711"
	ofWeb3   = "web/3/1/4/4711"
)

// members are workers about which everything is to be said: one of this binary, one
// that has nothing to be said of, and a program.
func members() map[string]*incarnation {
	return map[string]*incarnation{
		ofWeb1: {
			began: at(7, 8, 8), readyAt: at(7, 8, 9), cause: wire.CauseError, reason: "lost the database", blamedAt: at(8, 0, 0),
			dismissed: true, terminated: true, killed: true, let: letUpgrade, drainAt: at(8, 0, 1),
		},
		ofWeb2: {began: at(7, 8, 9), readyAt: at(7, 8, 10)},
		ofWeb3: {
			as: Group{DrainSignal: syscall.SIGQUIT}, announced: kindsOf(EventFork, EventOnline),
			began: at(7, 8, 10), program: true, greeted: true, asked: true, state: lifecycle.Draining,
			showed: true, online: true,
			handouts: handouts{queue: []handout{{Line: json.RawMessage(`{"ack":1}`), Socket: "http", Offer: true}}, flying: true, acks: 1},
			beats:    true, hungAfter: 30 * time.Second, text: "Serving 3 clients",
			streams: []*stream{{name: "stdout", rest: []byte("half a l")}, {name: "stderr", rest: []byte("wa")}},
		},
	}
}

func common() map[string]json.RawMessage {
	return map[string]json.RawMessage{"http": json.RawMessage(`"keys"`)}
}

func deaths() []Death {
	return []Death{{Time: at(7, 8, 7), Slot: 2, ID: 1, Generation: 4, Pid: 4710, Cause: "signal", Reason: "killed by SIGKILL"}}
}

func today() estateState {
	st := estateState{
		Version: estateVersion, Clock: clock.Reading{Time: at(9, 0, 0), Up: 1234567890}, Groups: map[string]groupState{"web": {Count: 3, Configured: 1, Restarts: 5, Failures: 2, SlotRestarts: map[int]int{2: 5}, Common: common(), Deaths: deaths()}},
		Workers: map[string]workerState{}, Residue: map[string][]byte{ofWeb1: []byte(lineHalf)},
	}
	for name, in := range members() {
		st.Workers[name] = in.handedOn()
	}
	return st
}

// process is somebody who lives until the test's end.
func process(t *testing.T) *launch.Process {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p, err := launch.Follow(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); p.Wait(); _ = cmd.Wait(); p.Close() })
	return p
}

// given is what is given away of a worker that has all the descriptors that one can
// have, and the other end of its channel.
func given(t *testing.T) (e Estate, other *os.File) {
	t.Helper()
	ours, other, err := wire.Pair()
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	close(done)
	in := &incarnation{group: newGroup(Group{Name: "web"}), slot: 1, id: 2, generation: 4, proc: process(t), program: true, reader: done}
	if in.conn, err = wire.NewConn(ours); err != nil {
		t.Fatal(err)
	}
	if in.inbox, err = sdnotify.NewInbox(); err != nil {
		t.Fatal(err)
	}
	if in.crash, err = launch.MemoryFile("crash"); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"stdout", "stderr"} {
		st, w, err := openStream(name)
		if err != nil {
			t.Fatal(err)
		}
		w.Close()
		st.halted, st.done = make(chan struct{}), done
		in.streams = append(in.streams, st)
	}
	e.Files = map[string]*os.File{}
	s := &Set{post: newPost()}
	s.post.NumbersFrom(1 << 37)
	in.out = wire.NewOutbox(in.conn, nil, s.wg.Go, func() {})
	var post postState
	err = s.give(in, &e, &post)
	if err == nil {
		err = s.givePost(&e, post)
	}
	if err != nil {
		t.Fatal(err)
	}
	in.proc, in.residue = nil, nil // process closes the one, the other is empty
	t.Cleanup(func() { in.close(); other.Close(); e.Close() })
	return e, other
}

// TestFormat: what a parent hands on, to one that may be of another version.
func TestFormat(t *testing.T) {
	e, _ := given(t)
	var names []string
	for name := range e.Files {
		if i := strings.LastIndexByte(name, '/'); i >= 0 {
			name = name[:i] + "/4711" // of any process
		}
		names = append(names, name)
	}
	slices.Sort(names)
	golden.Check(t, "estate.json", [][]byte{golden.JSON(t, today())})
	states := []string{} // in the field of that name
	for state := lifecycle.Spawning; state <= lifecycle.Exited; state++ {
		states = append(states, state.String())
	}
	golden.Check(t, "post.json", [][]byte{golden.JSON(t, todaysPost())})
	golden.Check(t, "names.jsonl", [][]byte{golden.JSON(t, names), golden.JSON(t, states)})
}

// todaysPost are messages under way: one that waits, one that a worker has and whose
// other copy has failed, and a result.
func todaysPost() postState {
	web := func(slot int) wire.Sender { return wire.Sender{Group: "web", Slot: slot, ID: 3 - slot, Generation: 4} }
	has := web(2)
	return postState{
		Router: router.State{Last: 9, Letters: []router.LetterState{
			{
				ID: 3, From: web(1), N: 7, To: wire.Address{To: wire.ToSlot, Group: "web", Slot: 3}, Type: "take", Files: 1,
				Parcels: []router.ParcelState{{N: 4, Box: router.Box{Group: "web", Slot: 3}}},
			},
			{
				ID: 5, N: 2, To: wire.Address{To: wire.ToAll}, Type: "news", Data: json.RawMessage(`{"a":1}`),
				Parcels: []router.ParcelState{{N: 6, Box: router.Box{Group: "web", Slot: 2}, Given: &has}},
				Result:  &wire.Result{Cmd: wire.CmdDone, N: 5, Why: wire.WhyHandler, Text: "no"},
			},
		}, Results: []router.ResultsState{{To: web(1), Results: []wire.Result{{Cmd: wire.CmdSent, N: 6, Data: json.RawMessage(`12`)}}}}},
		Residue: map[string][]byte{ofWeb1: []byte(lineHalf)}, Rest: map[string][]byte{ofWeb2: []byte(`half"}` + "\n")},
	}
}

// TestReadPost: what a later version adds is skipped.
func TestReadPost(t *testing.T) {
	t.Parallel()
	now := golden.Lines(t, "post.json")[0]
	for _, text := range [][]byte{now, golden.Later(now, "router", "last", "letters", "parcels", "n")} {
		if got := golden.Read[postState](t, text); !reflect.DeepEqual(got, todaysPost()) {
			t.Errorf("means\n%+v, not\n%+v", got, todaysPost())
		}
	}
}

// estates are the state as the first version wrote it, as it is written today, and as a
// later version may.
func estates(t *testing.T) map[string][]byte {
	now := golden.Lines(t, "estate.json")[0]
	return map[string][]byte{
		"first": golden.Lines(t, "estate.v1.json")[0], "today": now,
		"later": golden.Later(now, "v", "groups", "count", "began", "ready", "text"),
	}
}

// TestReadEstate: who has handed it on makes no difference to what it means.
func TestReadEstate(t *testing.T) {
	t.Parallel()
	for version, text := range estates(t) {
		got, want := golden.Read[estateState](t, text), today()
		if version == "first" { // it knew nothing of programs
			want.Version, want.Clock = 1, clock.Reading{}
			want.Groups["web"] = groupState{Count: 3, Configured: 1, Restarts: 5, Failures: 2}
			for name, ws := range want.Workers {
				want.Workers[name] = workerState{
					Ready: ws.Ready, Cause: ws.Cause, Reason: ws.Reason, Blamed: ws.Blamed,
					Dismissed: ws.Dismissed, Terminated: ws.Terminated, Killed: ws.Killed,
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s version means\n%+v, not\n%+v", version, got, want)
		}
	}
}

// estateV1 is the state as the first version knows it.
type estateV1 struct {
	Version int `json:"v"`
	Groups  map[string]struct {
		Count      int `json:"count"`
		Configured int `json:"configured"`
		Restarts   int `json:"restarts"`
		Failures   int `json:"failures"`
	} `json:"groups"`
	Workers map[string]workerV1 `json:"workers,omitempty"`
	Residue map[string][]byte   `json:"residue,omitempty"`
}

type workerV1 struct {
	Ready      time.Time `json:"ready,omitzero"`
	Cause      string    `json:"cause,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Blamed     time.Time `json:"blamed,omitzero"`
	Dismissed  bool      `json:"dismissed,omitempty"`
	Terminated bool      `json:"terminated,omitempty"`
	Killed     bool      `json:"killed,omitempty"`
}

// TestReadByFormer: the first version finds in today's state what it knows.
func TestReadByFormer(t *testing.T) {
	t.Parallel()
	texts := estates(t)
	want := golden.Read[estateV1](t, texts["first"])
	for _, version := range []string{"today", "later"} {
		got := golden.Read[estateV1](t, texts[version])
		got.Version = 1
		if !reflect.DeepEqual(got, want) {
			t.Errorf("the first version reads\n%+v, not\n%+v", got, want)
		}
	}
}

// TestAdoptFormats: a worker is taken over by the names of its descriptors and the state.
func TestAdoptFormats(t *testing.T) {
	t.Parallel()
	for version, text := range estates(t) {
		e, other := given(t)
		var identity string
		for name := range e.Files {
			if version == "first" && !strings.HasPrefix(name, "channel:") && !strings.HasPrefix(name, "pidfd:") {
				e.Files[name].Close() // it did not have these
				delete(e.Files, name)
			}
			if _, of, ok := strings.Cut(name, ":"); ok {
				identity = of
			}
		}
		pid := identity[strings.LastIndexByte(identity, '/'):]
		st := golden.Read[estateState](t, []byte(strings.ReplaceAll(string(text), "/4711", pid)))
		s := &Set{log: slog.New(slog.DiscardHandler), post: newPost()}
		s.takePost(e)
		in, err := s.adoptOne(identity, e, st, postState{Residue: st.Residue})
		if err != nil {
			t.Fatal(err)
		}
		got := fmt.Sprintf("%s %d %d %s %q %v %v %v", in.name(), in.id, in.generation, in.cause, in.reason, in.dismissed, in.terminated, in.killed)
		if got != `web/1 2 4 error "lost the database" true true true` || !in.readyAt.Equal(at(7, 8, 9)) || !in.blamedAt.Equal(at(8, 0, 0)) {
			t.Errorf("%s: %s, ready %v, blamed %v", version, got, in.readyAt, in.blamedAt)
		}
		if full := version != "first"; in.program != full || (in.inbox != nil) != full || (in.crash != nil) != full ||
			(len(in.streams) == 2) != full || in.began.Equal(at(7, 8, 8)) != full || len(e.Files) != 0 {
			t.Errorf("%s: %+v, left %v", version, in, e.Files)
		}
		if _, err := other.WriteString("}\n"); err != nil {
			t.Fatal(err)
		}
		if line, err := in.conn.Read(); err != nil || string(line) != lineHalf+"}" {
			t.Errorf("%s: the rest of a line is lost: %s, %v", version, line, err)
		}
		in.close()
	}
}
