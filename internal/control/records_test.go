//go:build linux

package control

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/golden"
	"github.com/handover-go/handover/internal/history"
	"github.com/handover-go/handover/internal/logs"
)

// TestSelector: what names which workers, and what names none.
func TestSelector(t *testing.T) {
	t.Parallel()
	web := logs.Worker{Group: "web", Slot: 2, ID: 3, Generation: 4, Pid: 4711}
	for s, want := range map[string]bool{
		"": true, "web": true, "web/2": true, "web/2/3": true, "web/2/3/4": true, "4711": true,
		"we": false, "web/1": false, "web/2/2": false, "web/2/3/5": false, "3": false, "2": false, "a b": false,
	} {
		sel, err := ParseSelector(s)
		if err != nil || sel.Matches(web) != want || sel.all() != (s == "") {
			t.Errorf("%q: %v, all %v, %v", s, sel.Matches(web), sel.all(), err)
		}
	}
	for _, s := range []string{"/", "/1", "web/", "web/x", "web/0", "web/-1", "web/1/2/3/4", "0", "-5", "web//1"} {
		if _, err := ParseSelector(s); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("worker %q: say GROUP", s)) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// past is a history of 6 entries: the ends of two workers in three generations.
func past() (list []history.Entry) {
	for i := range 6 {
		e := history.Entry{N: i + 1, Time: at(i)}
		if i%3 == 2 {
			e.Upgrade = &history.Upgrade{Generation: i, Result: "done"}
		} else {
			e.Death = &history.Death{Group: "web", Slot: i%3 + 1, ID: i + 1, Generation: i/3 + 1, Pid: 100 + i}
		}
		list = append(list, e)
	}
	return list
}

// TestHistory: all of it, or what is asked for.
func TestHistory(t *testing.T) {
	t.Parallel()
	path := socket(t)
	serve(t, path, &fake{history: past()})
	c := NewClient(path)
	numbers := func(h History, _ []byte, err error) (n []int) {
		if err != nil {
			t.Error(err)
		}
		for _, e := range h.Entries {
			n = append(n, e.N)
		}
		return n
	}
	for _, q := range []struct {
		got, want []int
	}{
		{numbers(c.History(within(t), "", 0)), []int{1, 2, 3, 4, 5, 6}},
		{numbers(c.History(within(t), "", 2)), []int{5, 6}},
		{numbers(c.History(within(t), "web", 0)), []int{1, 2, 4, 5}},
		{numbers(c.History(within(t), "web/2", 0)), []int{2, 5}},
		{numbers(c.History(within(t), "web/2", 1)), []int{5}},
		{numbers(c.History(within(t), "103", 0)), []int{4}},
		{numbers(c.History(within(t), "js", 0)), nil},
		{numbers(c.Entry(within(t), 3)), []int{3}},
		{numbers(c.Entry(within(t), 99)), nil},
	} {
		if !reflect.DeepEqual(q.got, q.want) {
			t.Errorf("%v, not %v", q.got, q.want)
		}
	}
	for _, q := range []string{"/v1/history?limit=x", "/v1/history?limit=-1", "/v1/history?entry=x", "/v1/history?worker=a/b", "/v1/logs?n=x", "/v1/logs?after=-1", "/v1/logs?worker=/"} {
		if _, err := c.do(within(t), http.MethodGet, q); err == nil || !strings.Contains(err.Error(), "400 Bad Request") {
			t.Errorf("%s: %v", q, err)
		}
	}
	golden.Check(t, "records.jsonl", [][]byte{
		golden.JSON(t, History{Entries: past()[1:3]}),
		golden.JSON(t, Logs{Lines: []logs.Line{{N: 3, Time: at(1), Worker: logs.Worker{Group: "web", Slot: 1, ID: 2, Generation: 3, Pid: 4}, Stream: "stderr", Text: "x"}}, Last: 7, Unkept: []logs.Worker{{Group: "web", Slot: 1, ID: 2, Generation: 3, Pid: 4}}}),
	})
}

func webWorker(slot int) logs.Worker {
	return logs.Worker{Group: "web", Slot: slot, ID: slot, Generation: 1, Pid: 100 + slot}
}

func TestLogs(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{unkept: []logs.Worker{webWorker(3), webWorker(4)}}
	serve(t, path, f)
	c := NewClient(path)
	if l, raw, err := c.Logs(within(t), "js", 5); err != nil || l.Lines == nil || len(l.Lines)+len(l.Unkept)+l.Last != 0 {
		t.Errorf("%s, %v", raw, err)
	}
	for i := range 200 {
		f.logs.Add(at(i%60), webWorker(i%2+1), "stdout", fmt.Sprint(i))
	}
	l, _, err := c.Logs(within(t), "web/1", 2)
	if err != nil || len(l.Lines) != 2 || l.Lines[1].Text != "198" || l.Last != 200 || len(l.Unkept) != 0 {
		t.Errorf("%+v, %v", l, err)
	}
	if l, _, err = c.Logs(within(t), "web/4", 2); err != nil || len(l.Unkept) != 1 || l.Unkept[0].Slot != 4 {
		t.Errorf("%+v, %v", l, err)
	}
	resp, err := c.do(within(t), http.MethodGet, "/v1/logs")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&l); err != nil || len(l.Lines) != defaultLines {
		t.Errorf("%d lines, %v", len(l.Lines), err)
	}
}

// TestFollow: lines are told as they come. When the server is closed the follower goes on
// with the next one, and misses none.
func TestFollow(t *testing.T) {
	t.Parallel()
	path := socket(t)
	var book logs.Book
	const each = 50
	got := make(chan Followed, 10*each)
	ctx, cancel := context.WithCancel(within(t))
	ended := make(chan error, 1)
	first, next := &fake{}, &fake{}
	// One socket, as parents inherit it.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	held, err := ln.File()
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	s := NewServer(first, slog.New(slog.DiscardHandler))
	s.Serve(ln)
	go func() { ended <- NewClient(path).Follow(ctx, "web/1", 0, func(f Followed) { got <- f }) }()
	add := func(b *logs.Book, from int) {
		for i := range each {
			b.Add(at(0), webWorker(1), "stdout", fmt.Sprint(from+i))
			b.Add(at(0), webWorker(2), "stdout", "not asked for")
		}
	}
	read := func(from int) {
		t.Helper()
		for i := range each {
			select {
			case f := <-got:
				if f.Text != fmt.Sprint(from+i) || f.Missed != 0 {
					t.Fatalf("%+v instead of %d", f, from+i)
				}
			case <-ctx.Done():
				t.Fatal("no line comes")
			}
		}
	}
	add(&first.logs, 0)
	read(0)
	var text bytes.Buffer
	if err := errors.Join(first.logs.Write(&text), book.Read(&text)); err != nil {
		t.Fatal(err)
	}
	add(&book, each) // before it comes again
	begin := time.Now()
	s.Close()
	if d := time.Since(begin); d > time.Second/2 {
		t.Errorf("a follower holds up the end for %v", d)
	}
	text.Reset()
	if err := errors.Join(book.Write(&text), next.logs.Read(&text)); err != nil {
		t.Fatal(err)
	}
	again, err := net.FileListener(held)
	if err != nil {
		t.Fatal(err)
	}
	s = NewServer(next, slog.New(slog.DiscardHandler))
	s.Serve(again)
	defer s.Close()
	read(each)
	add(&next.logs, 2*each)
	read(2 * each)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if err := NewClient(path+"?").Follow(within(t), "", 0, nil); !errors.Is(err, ErrNoService) {
		t.Error(err)
	}
}

// TestFollowStuck: a follower that does not read holds up neither who prints nor the
// server's end, and is told how much it has missed.
func TestFollowStuck(t *testing.T) {
	t.Parallel()
	path := socket(t)
	f := &fake{}
	s := serve(t, path, f)
	client, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_ = client.SetReadDeadline(time.Now().Add(patience))
	fmt.Fprint(client, "GET /v1/logs?follow=1 HTTP/1.1\r\nHost: handover\r\n\r\n")
	lines := bufio.NewReader(client)
	resp, err := http.ReadResponse(lines, nil)
	if err != nil {
		t.Fatal(err)
	}
	const n = 20_000
	for i := range n {
		f.logs.Add(at(0), webWorker(1), "stdout", fmt.Sprintf("%d %s", i, strings.Repeat("x", 100)))
	}
	sum, gaps := 0, 0
	dec := json.NewDecoder(resp.Body)
	for sum < n {
		var l Followed
		if err := dec.Decode(&l); err != nil {
			t.Fatalf("after %d: %v", sum, err)
		}
		if l.Missed > 0 {
			gaps++
			sum += l.Missed
			continue
		}
		if !strings.HasPrefix(l.Text, fmt.Sprint(sum)+" ") {
			t.Fatalf("%.20q as line %d", l.Text, sum)
		}
		sum++
	}
	if sum != n || gaps == 0 {
		t.Errorf("%d lines, %d gaps", sum, gaps)
	}
	// Again it does not read, now at the end.
	for range n {
		f.logs.Add(at(0), webWorker(1), "stdout", strings.Repeat("x", 100))
	}
	begin := time.Now()
	s.Close()
	if d := time.Since(begin); d > patience/2 {
		t.Errorf("it holds up the end for %v", d)
	}
}
