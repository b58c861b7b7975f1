//go:build linux

package workerset

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
)

// cut gives text to a stream in pieces that end at the given places.
func cut(text string, at ...int) (lines []string) {
	st := &stream{
		saw: io.Discard,
		put: func(line []byte, _ <-chan struct{}) bool { lines = append(lines, string(line)); return true },
	}
	from := 0
	for _, to := range append(at, len(text)) {
		st.take([]byte(text[from:to]))
		st.emit()
		from = to
	}
	st.flush()
	return lines
}

func TestStream(t *testing.T) {
	const text = "one\n\ntwo\r\nthree"
	want := "one\n|\n|two\r\n|three"
	for i := range text {
		for j := i; j <= len(text); j++ {
			if got := strings.Join(cut(text, i, j), "|"); got != want {
				t.Fatalf("cut at %d and %d: %q", i, j, got)
			}
		}
	}
	long := strings.Repeat("x", 2*maxOutputLine+5)
	for _, at := range []int{0, 1, maxOutputLine, maxOutputLine + 1, len(long)} {
		lines := cut(long+"\nshort\n", at)
		if len(lines) != 4 || strings.Join(lines[:3], "") != long+"\n" || lines[3] != "short\n" {
			t.Errorf("cut at %d: %d lines", at, len(lines))
		}
	}
}

func FuzzStream(f *testing.F) {
	f.Add("a\nb", 1)
	f.Add(strings.Repeat("x", maxOutputLine)+"\n", 5)
	f.Fuzz(func(t *testing.T, text string, at int) {
		at = max(0, min(at, len(text)))
		lines := cut(text, at)
		for _, l := range lines {
			if l = strings.TrimSuffix(l, "\n"); len(l) > maxOutputLine || strings.Contains(l, "\n") {
				t.Fatalf("a line of %d bytes", len(l))
			}
		}
		if got := strings.Join(lines, ""); got != text {
			t.Fatalf("%q became %q", text, got)
		}
	})
}

func TestPrinter(t *testing.T) {
	for form, want := range map[Output]string{OutputPrefixed: "web/1 | a line\n", OutputJSON: "", OutputRaw: "a line\n"} {
		r, w, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		p := newPrinter(int(w.Fd()), int(w.Fd()))
		w.Close()
		p.print(form, "web/1", "stderr", []byte("a line\n"), nil)
		p.close()
		buf := make([]byte, 1024)
		n, _ := r.Read(buf)
		r.Close()
		line := string(buf[:n])
		var rec map[string]string
		if form == OutputJSON {
			if err := json.Unmarshal(buf[:n], &rec); err != nil || rec["msg"] != "a line" || rec["worker"] != "web/1" || rec["stream"] != "stderr" || rec["level"] != "INFO" || rec["time"] == "" {
				t.Errorf("%v: %s", err, line)
			}
		} else if line != want {
			t.Errorf("%q", line)
		}
		// Nobody reads any more: that must not end this process.
		p = newPrinter(1<<20, 1<<20)
		p.print(form, "web/1", "stdout", []byte("lost"), nil)
		p.close()
	}
}

func TestIsNode(t *testing.T) {
	dir := t.TempDir()
	script := func(first string) string {
		path := filepath.Join(dir, "script")
		if err := os.WriteFile(path, []byte(first), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	for first, want := range map[string]bool{
		"#!/usr/bin/env node\n":                           true,
		"#!/usr/bin/node\nrest":                           true,
		"#! /usr/local/bin/nodejs --x":                    true,
		"#!/usr/bin/env -S node --max-old-space-size=1\n": true,
		"#!/usr/bin/env NODE_ENV=production node\n":       true,
		"#!/usr/bin/env python3 node\n":                   false,
		"#!/bin/sh\n#!node":                               false,
		"#!" + strings.Repeat("x", 300) + "/node":         false,
		"#!":   false,
		"node": false,
		"":     false,
	} {
		if got := isNode(script(first)); got != want {
			t.Errorf("%.40q: %v", first, got)
		}
	}
	for path, want := range map[string]bool{"/opt/node": true, "nodejs": true, "/usr/bin/node-gyp": false, "/no/such/file": false} {
		if got := isNode(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

func TestParseReadiness(t *testing.T) {
	for _, s := range []string{"auto", "notify", "channel", "http:/", "http:/a?b=c", "200ms", "1h0m0s"} {
		if r, err := ParseReadiness(s); err != nil || r.String() != s {
			t.Errorf("%q: %v, %v", s, r, err)
		}
	}
	for _, s := range []string{"http", "http:", "http:x", "http:/a b", "http:/\n", "-1s", "5", "ready"} {
		if r, err := ParseReadiness(s); err == nil {
			t.Errorf("%q is taken for %v", s, r)
		}
	}
}

func FuzzParseReadiness(f *testing.F) {
	f.Add("http:/x")
	f.Add("200ms")
	f.Fuzz(func(t *testing.T, s string) {
		r, err := ParseReadiness(s)
		if err != nil {
			return
		}
		if again, err := ParseReadiness(r.String()); err != nil || again != r {
			t.Errorf("%q: %+v, then %+v, %v", s, r, again, err)
		}
	})
}

// TestAccepted finds this process behind connections that it has accepted, over
// both families.
func TestAccepted(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0", ":0"} {
		ln, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		rc, err := ln.(*net.TCPListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		to := ""
		if cerr := rc.Control(func(fd uintptr) { to, err = tcpAddr(int(fd)) }); cerr != nil || err != nil {
			t.Fatal(cerr, err)
		}
		c, err := net.Dial("tcp", to)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if inode, err := accepted(c); inode != "" || err != nil {
			t.Errorf("%s, before: %s, %v", addr, inode, err)
		}
		s, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		inode, err := accepted(c)
		if inode == "" || err != nil {
			t.Fatalf("%s: %q, %v", addr, inode, err)
		}
		if !owns(os.Getpid(), inode) || !owns(os.Getppid(), inode) || owns(os.Getpid(), inode+"0") {
			t.Errorf("%s: who owns %s?", addr, inode)
		}
		ours, theirs := netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
		if by := acceptedByTable(ours, theirs); by != inode {
			t.Errorf("%s: %q by the table, not %s", addr, by, inode)
		}
	}
}

func FuzzFindSocket(f *testing.F) {
	f.Add("   0: 0100007F:1F90 0100007F:C001 01 00000000:00000000 00:00000000 00000000     0        0 4711 1")
	f.Add("   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:C001 01 0:0 00:0 0 0 0 4711 1")
	local, remote := netip.MustParseAddrPort("127.0.0.1:8080"), netip.MustParseAddrPort("127.0.0.1:49153")
	f.Fuzz(func(t *testing.T, table string) {
		inode := findSocket(table, local, remote)
		if inode != "" && !bytes.Contains([]byte(table), []byte(inode)) {
			t.Errorf("%q", inode)
		}
		if strings.Contains(table, "4711") && strings.HasPrefix(table, "   0: ") && strings.Count(table, "C001") == 1 && strings.HasSuffix(table, "0 4711 1") && inode == "0" {
			t.Error("not accepted")
		}
	})
}

func TestMend(t *testing.T) {
	for _, c := range []struct {
		torn           int
		residue, mends string
	}{
		{0, "x}\n{}\n", "x}\n{}\n"},
		{1, "x}\n{}\n", "{}\n"},
		{1, "x}", "x}"},
		{2, "{}\n\nx}\n{\"a\":1}\n{", "{}\n\n{\"a\":1}\n{"},
		{1, "{}\nx}\n", "{}\nx}\n"},
		{3, "{}\nx}\n", "{}\nx}\n"},
		{1, "", ""},
	} {
		if got := mend([]byte(c.residue), c.torn); string(got) != c.mends {
			t.Errorf("%q, %d: %q, not %q", c.residue, c.torn, got, c.mends)
		}
	}
}

// TestDeaths: the last ones are kept.
func TestDeaths(t *testing.T) {
	t.Parallel()
	g := newGroup(Group{Name: "web"})
	for i := range 20 {
		g.record(Death{ID: 2 * i}, Death{ID: 2*i + 1})
	}
	if len(g.deaths) != keptDeaths || g.deaths[0].ID != 40-keptDeaths || g.deaths[keptDeaths-1].ID != 39 {
		t.Errorf("%+v", g.deaths)
	}
}

// TestWaiting: a slot says what is the matter from the moment on that its worker came to nothing
// until it has another one; also in the one in which that is due.
func TestWaiting(t *testing.T) {
	now := time.Now()
	nothing := slot{failures: 2, last: errors.New("no room")}
	waits, due, owes := nothing, nothing, nothing
	waits.notBefore = now.Add(time.Hour)
	due.notBefore = now.Add(-time.Hour)
	owes.notBefore, owes.owes = due.notBefore, now
	had := due // its worker has not served for long enough to make one forget
	died := slot{}
	g := &group{Group: Group{Count: 6}, slots: map[int]*slot{1: &waits, 2: &due, 3: &owes, 4: &had, 5: &died}, members: []*incarnation{{slot: 4}}}
	want := []Waiting{
		{Slot: 1, Failures: 2, Reason: "no room", Until: waits.notBefore},
		{Slot: 2, Failures: 2, Reason: "no room", Until: due.notBefore},
		{Slot: 3, Failures: 2, Reason: "no room"},
	}
	if got := g.waiting(); !slices.Equal(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}

// TestStandstill: a set that has stood still, with its workers or without, takes none of them for
// hung: it looks at the clock so often that it knows.
func TestStandstill(t *testing.T) {
	const hungAfter = 4 * time.Second
	for still := time.Duration(0); still < 3*hungAfter; still += hungAfter / 16 {
		for ago := time.Duration(0); ago <= hungAfter/3; ago += hungAfter / 16 { // the last heartbeat
			now := time.Now()
			in := &incarnation{beats: true, beat: now.Add(-ago), hungAfter: hungAfter}
			g := &group{members: []*incarnation{in}}
			s := &Set{groups: []*group{g}}
			due := s.nextDeadline()
			wakes := due
			if end := now.Add(still); end.After(due) {
				wakes = end
			}
			s.woken(due, wakes)
			if in.hungAt().Before(wakes) {
				t.Errorf("the set stood still for %v, and its worker, last heard of %v before, is hung", still, ago)
			}
		}
	}
}
