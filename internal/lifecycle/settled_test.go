package lifecycle

import (
	"fmt"
	"slices"
	"testing"
)

// brokenSettled are Settled with one rule lost.
var brokenSettled = map[string]func([]Worker, Want) bool{
	"whoever was told to drain has stopped": func(ws []Worker, w Want) bool { return Settled(with(ws, func(x *Worker) { x.Silent = false }), w) },
	"who is terminated has stopped": func(ws []Worker, w Want) bool {
		return Settled(with(ws, func(x *Worker) { x.Silent = x.Silent && x.State != Terminating }), w)
	},
	"who is killed is waited for": func(ws []Worker, w Want) bool {
		return Settled(ws, w) && !slices.ContainsFunc(ws, func(x Worker) bool { return x.Silent && x.State == Killing })
	},
	"the surplus do not count": func(ws []Worker, w Want) bool {
		return Settled(slices.DeleteFunc(slices.Clone(ws), func(x Worker) bool { return x.Slot > w.Count }), w)
	},
	"nobody is stale":    func(ws []Worker, w Want) bool { return Settled(with(ws, func(x *Worker) { x.Stale = false }), w) },
	"no roll is halted":  func(ws []Worker, w Want) bool { w.Halted = false; return Settled(ws, w) },
	"one slot is enough": func(ws []Worker, w Want) bool { return SlotSettled(ws, w, 1) },
}

// with returns workers that were changed.
func with(ws []Worker, change func(*Worker)) []Worker {
	ws = slices.Clone(ws)
	for i := range ws {
		change(&ws[i])
	}
	return ws
}

func TestEveryBrokenSettledIsCaught(t *testing.T) {
	t.Parallel()
	for name, settled := range brokenSettled {
		if how := caught(func(x *explorer) { x.isSettled = settled }); how == "" {
			t.Errorf("survives: %s", name)
		} else {
			t.Logf("%s: %s", name, how)
		}
	}
}

// TestSettledOfAnyTwo looks at every two workers there can be.
func TestSettledOfAnyTwo(t *testing.T) {
	t.Parallel()
	var one []Worker
	for slot := 1; slot <= 2; slot++ {
		for s := range numStates {
			for k := range 4 {
				one = append(one, Worker{Slot: slot, State: s, Stale: k&1 != 0, Silent: k&2 != 0})
			}
		}
	}
	for _, a := range one {
		for _, b := range one {
			for k := range 6 {
				want := Want{Count: k % 3, Halted: k >= 3}
				if got, other := Settled([]Worker{a, b}, want), settledInWords(a, b, want); got != other {
					t.Fatalf("%+v, %+v, %+v: %v", a, b, want, got)
				}
			}
		}
	}
}

// settledInWords is Settled of two, said in another way: as what each of them is to its
// slot.
func settledInWords(a, b Worker, want Want) bool {
	said := map[int]string{1: "", 2: ""}
	for _, w := range []Worker{a, b} {
		switch w.State {
		case Spawning, Starting, Standby, Condemned:
			said[w.Slot] += "comes or goes "
		case Serving, Degraded:
			said[w.Slot] += map[bool]string{false: "new ", true: "old "}[w.Stale]
		case Draining, Terminating:
			said[w.Slot] += map[bool]string{false: "", true: "silent "}[w.Silent]
		case Killing, Exited:
		default:
			panic(fmt.Sprint(w.State))
		}
	}
	for slot, is := range said {
		ok := is == ""
		if slot <= want.Count {
			ok = is == "new " || want.Halted && (is == "old " || is == "old old ")
		}
		if !ok {
			return false
		}
	}
	return true
}
