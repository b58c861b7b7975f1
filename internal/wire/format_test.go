package wire

import (
	"encoding/json"
	"reflect"
	"testing"

	"github.com/handover-go/handover/internal/golden"
)

// full has every field of a State.
var full = State{
	Cmd: CmdState, Version: Version, Pid: 4711, ID: 3, Group: "web", Slot: 2, Generation: 7, Phase: PhaseExiting,
	Cause: CauseError, Reason: "lost the database", ExitCode: 1, Active: 4, Served: 120, Cut: 5, BeatMS: 5000,
	Idle: 3, Hijacked: 1, MovedIn: 7, MovedOut: 6, Requests: 4200,
	Open: []OpenConn{{Peer: "192.0.2.1:4711", State: "active", AgeMS: 1500}, {State: "hijacked"}},
}

// stateV1 is the State of version 1, at its beginning.
type stateV1 struct {
	Cmd        string `json:"cmd"`
	Version    int    `json:"v"`
	Pid        int    `json:"pid"`
	ID         int    `json:"id"`
	Group      string `json:"group"`
	Slot       int    `json:"slot"`
	Generation int    `json:"generation"`
	Phase      string `json:"phase"`
	Cause      string `json:"cause,omitempty"`
	Reason     string `json:"reason,omitempty"`
	ExitCode   int    `json:"exit,omitempty"`
	Active     int    `json:"active,omitempty"`
	Served     int    `json:"served,omitempty"`
	Cut        int    `json:"cut,omitempty"`
}

// messages are the commands with which the application's go to and fro, each with all
// that it may have.
var messages = []any{
	Message{Cmd: CmdMessage, N: 12, To: Address{To: ToSlot, Group: "web", Slot: 2}, Type: "price", Data: json.RawMessage(`{"of":"apple"}`), Files: 2},
	Message{Cmd: CmdMessage, N: 4711, From: Sender{Group: "web", Slot: 1, ID: 3, Generation: 7}, Type: "price", Data: json.RawMessage(`{"of":"apple"}`), Files: 2},
	Result{Cmd: CmdDone, N: 4711, Data: json.RawMessage("12")},
	Result{Cmd: CmdSent, N: 12, Why: WhyHandler, Text: "no such fruit"},
	Again{Cmd: CmdAgain, N: 4711},
	Mail{Cmd: CmdMail, N: 3, Sent: []int{12, 13}, Have: []int{4711}, Done: []int{4709, 4710}, Forgot: 4453},
	Mail{Cmd: CmdMail},
	Who{Cmd: CmdWho}, Who{Cmd: CmdWho, Mail: true, N: 3},
}

// TestFormat: the commands between a parent and a worker, which may be of different
// versions, and in different languages.
func TestFormat(t *testing.T) {
	lines := []any{
		full,
		Moves{Cmd: CmdMoves, Do: MoveGive},
		Order{CmdWho}, Order{CmdGo}, Order{CmdHold}, Order{CmdExit}, Order{CmdStopping}, Order{CmdForgive},
		Drain{Cmd: CmdDrain}, Drain{Cmd: CmdDrain, TimeoutMS: 25000, Exit: true, Stop: true},
		Connect{Cmd: CmdConnect, Socket: "http"},
		Service{Cmd: CmdService, Generation: 2},
		Service{Cmd: CmdService, Generation: 2, Ready: true, Helpers: []Helper{{Group: "agent", Slot: 1, ID: 3, Generation: 2, Pid: 4711}}},
	}
	for _, p := range []Phase{PhaseStarting, PhaseReady, PhaseServing, PhaseDraining, PhaseDrained, PhaseExiting} {
		lines = append(lines, State{Cmd: CmdState, Version: Version, Phase: p})
	}
	for _, c := range []Cause{
		CauseRetire, CauseDone, CauseError, CausePanic, CauseHandlerPanic, CauseSignal, CauseExit,
		CauseStartExit, CauseStartTimeout, CauseSpawn, CauseChannel, CauseCrash, CauseHung, CauseRecycle,
	} {
		lines = append(lines, State{Cmd: CmdState, Version: Version, Phase: PhaseDraining, Cause: c})
	}
	lines = append(lines, messages...)
	for _, to := range []To{ToParent, ToSlot, ToGroup, ToAny, ToAll} {
		lines = append(lines, Message{Cmd: CmdMessage, N: 1, To: Address{To: to}})
	}
	for _, why := range []Why{WhyHandler, WhyUnhandled, WhyAddress, WhyGone, WhyLost, WhyRefused} {
		lines = append(lines, Result{Cmd: CmdSent, N: 1, Why: why})
	}
	var got [][]byte
	for _, v := range lines {
		got = append(got, golden.JSON(t, v))
	}
	golden.Check(t, "commands.jsonl", got)
}

// TestFormerFormat: what workers and parents of the first version say means the same.
func TestFormerFormat(t *testing.T) {
	t.Parallel()
	state := full
	state.BeatMS, state.Idle, state.Hijacked, state.MovedIn, state.MovedOut, state.Requests = 0, 0, 0, 0, 0, 0
	state.Open = nil
	state.Version = 1
	lines := golden.Lines(t, "commands.v1.jsonl")
	same(t, lines[0], state)
	same(t, lines[1], State{Cmd: CmdState, Version: 1, Pid: 4711, ID: 1, Group: "web", Slot: 1, Generation: 1, Phase: PhaseStarting})
	for i, cmd := range []string{CmdWho, CmdGo, CmdHold, CmdExit} {
		same(t, lines[2+i], Order{cmd})
	}
	same(t, lines[6], Drain{Cmd: CmdDrain})
	same(t, lines[7], Drain{Cmd: CmdDrain, TimeoutMS: 25000, Exit: true, Stop: true})
}

// TestLaterFormat: what is not known is skipped, here and by the first version.
func TestLaterFormat(t *testing.T) {
	t.Parallel()
	line := golden.Lines(t, "commands.jsonl")[0]
	later := golden.Later(line, "cmd", "phase")
	same(t, later, full)
	for _, line := range [][]byte{line, later} {
		same(t, line, stateV1{CmdState, Version, 4711, 3, "web", 2, 7, "exiting", "error", "lost the database", 1, 4, 120, 5})
	}
	drain := Drain{Cmd: CmdDrain, TimeoutMS: 25000, Exit: true, Stop: true}
	same(t, golden.Later(golden.JSON(t, drain), "cmd", "stop"), drain)
	connect := Connect{CmdConnect, "http"}
	same(t, golden.Later(golden.JSON(t, connect), "socket"), connect)
}

// TestLaterMessages: a later version's additions are skipped, and everything that is said
// of a message is read as it was meant.
func TestLaterMessages(t *testing.T) {
	t.Parallel()
	for _, v := range messages {
		line := golden.JSON(t, v)
		for _, line := range [][]byte{line, golden.Later(line, "cmd", "n", "group", "slot")} {
			got := reflect.New(reflect.TypeOf(v))
			if err := json.Unmarshal(line, got.Interface()); err != nil || !reflect.DeepEqual(got.Elem().Interface(), v) {
				t.Errorf("%s means\n%+v, not\n%+v (%v)", line, got.Elem(), v, err)
			}
		}
	}
	// The first version's question, and what it makes of this one's.
	same(t, golden.Lines(t, "commands.v1.jsonl")[2], Who{Cmd: CmdWho})
	same(t, golden.JSON(t, Who{Cmd: CmdWho, Mail: true, N: 3}), Order{CmdWho})
}

// same reads a line as what it is to mean.
func same[T any](t *testing.T, line []byte, want T) {
	t.Helper()
	if got := golden.Read[T](t, line); !reflect.DeepEqual(got, want) {
		t.Errorf("%s means\n%+v, not\n%+v", line, got, want)
	}
	if cmd, err := Cmd(line); err != nil || cmd != golden.Read[Order](t, line).Cmd {
		t.Errorf("%s is a %q, %v", line, cmd, err)
	}
}
