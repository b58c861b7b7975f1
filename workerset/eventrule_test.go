//go:build linux

package workerset

import (
	"maps"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

func letter(k EventKind) string {
	i := slices.Index(eventKinds, k)
	return string("folredxc"[i])
}

// TestEventRules: whatever happens in whatever order, what is told is a story in
// Node's order, and every such story can be told.
func TestEventRules(t *testing.T) {
	cores := map[string]bool{} // stories without what may come more than once
	legal := map[string]bool{}
	for _, s := range strings.Fields("f fo for fd fod ford fodr fdx fodx fordx fodrx fdxc fodxc fordxc fodrxc c") {
		legal[s] = true
	}
	var tell func(story string, a announced, depth int)
	tell = func(story string, a announced, depth int) {
		core := strings.NewReplacer("e", "", "l", "").Replace(story)
		if core != "" {
			cores[core] = true
		}
		at := func(l string) int { return strings.Index(story, l) }
		switch {
		case core != "" && !legal[core]:
			t.Fatalf("%q is told", story)
		case strings.Contains(story, "l") && (at("o") < 0 || at("l") < at("o")):
			t.Fatalf("%q: it listens before it is online", story)
		case at("x") >= 0 && strings.LastIndexAny(story, "le") > at("x"):
			t.Fatalf("%q: something happens to it after its end", story)
		case core == "c" && at("e") != 0:
			t.Fatalf("%q: nothing was wrong", story)
		case at("f") > 0:
			t.Fatalf("%q: something happens before it is there", story)
		}
		if got := kindsOf(a.names()...); got != a {
			t.Fatalf("%08b travels as %v", a, a.names())
		}
		if depth == 0 {
			return
		}
		for i, kind := range eventKinds {
			kinds, after := a.next(kind)
			if len(kinds) == 0 && after != a {
				t.Fatalf("%q: nothing is told of %s, and it counts as told", story, kind)
			}
			if len(kinds) > 0 && kinds[len(kinds)-1] != kind {
				t.Fatalf("%q: of %s it is told %v", story, kind, kinds)
			}
			more := ""
			for _, k := range kinds {
				more += letter(k)
			}
			if len(kinds) > 0 || i == 0 { // what changes nothing leads nowhere new
				tell(story+more, after, depth-1)
			}
		}
	}
	tell("", 0, 7)
	if !maps.Equal(cores, legal) {
		t.Errorf("what can be told is %v", slices.Sorted(maps.Keys(cores)))
	}
	if _, after := announced(0).next("no such kind"); after != 0 {
		t.Error("an unknown kind is told")
	}
}

// TestNewsMissed: a function that does not come back costs no memory without end, and
// hears how much it has not heard.
func TestNewsMissed(t *testing.T) {
	began, goOn := make(chan int), make(chan int)
	var got []Event
	n := startNews(func(ev Event) {
		if got = append(got, ev); len(got) == 1 {
			close(began)
			<-goOn
		}
	})
	n.add(Event{ID: -1})
	<-began
	for i := range maxNews + 5 {
		n.add(Event{ID: i})
	}
	close(goOn)
	n.close()
	if len(got) != maxNews+1 || got[maxNews].ID != maxNews-1 || got[maxNews].Missed != 0 {
		t.Errorf("%d events, the last one %+v", len(got), got[len(got)-1])
	}

	// What they say is bounded, too.
	began, goOn, got = make(chan int), make(chan int), nil
	n = startNews(func(ev Event) {
		if got = append(got, ev); len(got) == 1 {
			close(began)
			<-goOn
		}
	})
	n.add(Event{})
	<-began
	big := strings.Repeat("x", maxReason)
	for range maxNewsBytes/maxReason + 5 {
		n.add(Event{Reason: big})
	}
	n.add(Event{ID: 7})
	close(goOn)
	n.close()
	if last := got[len(got)-1]; len(got) != maxNewsBytes/maxReason+2 || last.ID != 7 || last.Missed != 5 {
		t.Errorf("%d events, the last one %+v", len(got), last)
	}

	n = startNews(func(ev Event) { got = append(got, ev) })
	n.missed = 5
	n.add(Event{})
	n.add(Event{})
	n.close()
	if a, b := got[len(got)-2], got[len(got)-1]; a.Missed != 5 || b.Missed != 0 {
		t.Errorf("%+v, %+v", a, b)
	}
	startNews(nil).close()
}

// TestOrder: which groups can go after which.
func TestOrder(t *testing.T) {
	for spec, want := range map[string]string{
		"a b c":                   "",
		"a:b,c b:c c":             "",
		"a b:a c:a d:b,c":         "",
		"a:nobody":                `group "a": it goes after "nobody", and there is no such group`,
		"a b:a,a":                 `group "b": it goes after "a" twice`,
		"a:a":                     `group "a": it can't start, since each waits for the next: a, a`,
		"x:a a:b b:c c:a":         `group "a": it can't start, since each waits for the next: a, b, c, a`,
		"a:b,c b c:d d:c":         `group "c": it can't start, since each waits for the next: c, d, c`,
		"a b:a c:b d:c e:d f:e,a": "",
	} {
		var groups []Group
		for _, word := range strings.Fields(spec) {
			name, after, _ := strings.Cut(word, ":")
			g := Group{Name: name}
			if after != "" {
				g.After = strings.Split(after, ",")
			}
			groups = append(groups, g)
		}
		got := ""
		if err := checkOrder(groups); err != nil {
			got = err.Error()
		}
		if got != want {
			t.Errorf("%s: %q, not %q", spec, got, want)
		}
	}
}

// TestListensOnce: that a socket is served is told once, however it becomes known, and
// a file is none.
func TestListensOnce(t *testing.T) {
	ln, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	f, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	var got []Event
	s := &Set{news: startNews(func(ev Event) { got = append(got, ev) })}
	s.cfg.Sockets = map[string]int{"dns": int(f.Fd()), "file": int(null.Fd())}
	g := newGroup(Group{Name: "web", Sockets: []string{"dns", "file"}})
	in := &incarnation{group: g, as: g.Group, announced: kindsOf(EventFork, EventOnline)}
	s.listens(in, "dns")
	s.listens(in, "nothing")
	s.announceReady(in)
	s.announceReady(in)
	next := &incarnation{group: g, as: g.Group, announced: in.announced}
	s.announceReady(next) // of another parent
	s.news.close()
	if len(got) != 2 || got[0].Socket != "dns" || got[0].Network != "udp" || got[0].Addr != ln.LocalAddr().String() || got[1].Kind != EventReady {
		t.Errorf("%+v", got)
	}
}
