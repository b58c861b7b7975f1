//go:build linux

package workerset

import (
	"errors"
	"strings"
	"testing"
)

func TestParseWhich(t *testing.T) {
	for s, want := range map[string]Which{
		"web/1": {Group: "web", Slot: 1}, "a-b/12": {Group: "a-b", Slot: 12}, "4711": {Pid: 4711}, "1": {Pid: 1},
	} {
		got, err := ParseWhich(s)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
		if again, err := ParseWhich(strings.TrimPrefix(got.String(), "pid ")); err != nil || again != want {
			t.Errorf("%q: %v is read as %+v, %v", s, got, again, err)
		}
	}
	for _, s := range []string{"", "web", "web/", "/1", "web/0", "web/-1", "web/+1", "web/01", "web/1/2", "0", "-5", "+5", "5 ", "1.5", "99999999999999999999", "web/1\n"} {
		if got, err := ParseWhich(s); err == nil || !strings.Contains(err.Error(), "write GROUP/SLOT, such as web/1, or its pid") {
			t.Errorf("%q: %+v, %v", s, got, err)
		}
	}
}

// TestFind: whoever is named is found, and nobody else.
func TestFind(t *testing.T) {
	at := func(group string, slot, pid, id int, state string) Worker {
		return Worker{Group: group, Slot: slot, Pid: pid, ID: id, Generation: 1, State: state}
	}
	all := []Worker{
		at("web", 1, 11, 1, "draining"), at("web", 1, 12, 3, "serving"),
		at("web", 2, 13, 2, "condemned"),
		at("web", 3, 14, 4, "serving"), at("web", 3, 15, 5, "starting"),
		at("web", 4, 16, 6, "terminating"), at("web", 4, 17, 7, "killing"),
		at("web", 5, 18, 8, "exited"), at("job", 1, 19, 1, "degraded"),
		at("web", 6, 20, 9, "draining"),
	}
	for _, c := range []struct {
		which    string
		replaces bool
		want     int // its pid
		is       error
		text     string
	}{
		{which: "web/1", replaces: true, want: 12},
		{which: "web/1", is: ErrAmbiguous, text: "web/1: pid 11 of generation 1 is draining, pid 12 of generation 1 is serving: say which by its pid"},
		{which: "11", replaces: true, want: 11},
		{which: "11", want: 11},
		{which: "web/2", replaces: true, want: 13},
		{which: "web/2", want: 13},
		{which: "web/3", replaces: true, is: ErrAmbiguous, text: "pid 14 of generation 1 is serving, pid 15 of generation 1 is starting"},
		{which: "web/3", is: ErrAmbiguous},
		{which: "web/4", replaces: true, is: ErrAmbiguous},
		{which: "web/6", replaces: true, want: 20},
		{which: "job/1", want: 19},
		{which: "18", is: ErrNoWorker, text: "pid 18; there are job/1 (pid 19), web/1 (pid 11), web/1 (pid 12), web/2 (pid 13)"},
		{which: "web/5", is: ErrNoWorker},
		{which: "web/7", replaces: true, is: ErrNoWorker, text: "web/7; there are job/1 (pid 19), web/1 (pid 11)"},
		{which: "job/2", is: ErrNoWorker},
		{which: "nobody/1", is: ErrNoWorker},
		{which: "5", is: ErrNoWorker, text: "pid 5 (an ID is no name: that of web/3 is 5, its pid 15); there are"},
	} {
		w, err := ParseWhich(c.which)
		if err != nil {
			t.Fatal(err)
		}
		i, err := w.find(all, c.replaces)
		switch {
		case c.is != nil && (!errors.Is(err, c.is) || !strings.Contains(err.Error(), c.text)):
			t.Errorf("%s, %v: %v", c.which, c.replaces, err)
		case c.is == nil && (err != nil || all[i].Pid != c.want):
			t.Errorf("%s, %v: %v, %v", c.which, c.replaces, all[i], err)
		}
	}
	for _, c := range []struct {
		all  []Worker
		want string
	}{{nil, "; there is nobody"}, {all[1:2], "; there is web/1 (pid 12)"}} {
		if _, err := (Which{Pid: 99}).find(c.all, false); err == nil || !strings.HasSuffix(err.Error(), c.want) {
			t.Error(err)
		}
	}
}
