package sdnotify

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestNote(t *testing.T) {
	for _, c := range []struct {
		text, name, value string
		ok                bool
	}{
		{"", "READY", "", false},
		{"READY=1", "READY", "1", true},
		{"READY=1\n", "READY", "1", true},
		{"READY", "READY", "", false},
		{"READY=", "READY", "", true},
		{"READY=0\nSTATUS=READY=1", "READY", "0", true},
		{"STATUS=a=b", "STATUS", "a=b", true},
		{"XREADY=1", "READY", "", false},
		{"STATUS=x\nMAINPID=12\nREADY=1", "MAINPID", "12", true},
		{"MAINPID=12\nMAINPID=13", "MAINPID", "12", true},
		{"\n\nMAINPID= 12", "MAINPID", " 12", true},
	} {
		n := Note{Text: c.text}
		if v, ok := n.Get(c.name); v != c.value || ok != c.ok {
			t.Errorf("%q: %s is %q, %v", c.text, c.name, v, ok)
		}
		if n.Says(c.name, c.value) != c.ok || n.Says(c.name, c.value+"x") {
			t.Errorf("%q: Says", c.text)
		}
	}
}

func FuzzNote(f *testing.F) {
	f.Add("READY=1\nMAINPID=12\n", "READY")
	f.Add("MAINPID=-1\x00\n\n=", "")
	f.Fuzz(func(t *testing.T, text, name string) {
		v, ok := Note{Text: text}.Get(name)
		if ok && !strings.Contains("\n"+text+"\n", "\n"+name+"="+v) {
			t.Errorf("%q: %s is %q", text, name, v)
		}
	})
}

func TestSay(t *testing.T) {
	r := Reloading()
	if len(r) != 2 || r[0] != "RELOADING=1" || !strings.HasPrefix(r[1], "MONOTONIC_USEC=") || r[1] == "MONOTONIC_USEC=0" {
		t.Errorf("%q", r)
	}
	if got := Extend(1500 * time.Millisecond); got != "EXTEND_TIMEOUT_USEC=1500000" {
		t.Error(got)
	}
	for text, want := range map[string]string{
		"serves":                 "STATUS=serves",
		"two\nlines\tand  more ": "STATUS=two lines and more",
		"bad \xff byte":          "STATUS=bad  byte",
		strings.Repeat("ä", 200): "STATUS=" + strings.Repeat("ä", 148) + "…",
	} {
		if got := Status(text); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
	if got := Errno(fmt.Errorf("listen: %w", os.NewSyscallError("bind", syscall.EADDRINUSE))); !slices.Equal(got, []string{fmt.Sprintf("ERRNO=%d", syscall.EADDRINUSE)}) {
		t.Errorf("%q", got)
	}
	if got := append(Errno(os.ErrClosed), Errno(nil)...); len(got) > 0 {
		t.Errorf("%q", got)
	}
}

func TestWatchdog(t *testing.T) {
	own := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		socket, usec, pid string
		want              time.Duration
		bad               string
	}{
		{"@x", "", "", 0, ""},
		{"", "1000000", own, 0, ""}, // nobody to tell
		{"@x", "1500000", own, 1500 * time.Millisecond, ""},
		{"@x", "1500000", "", 1500 * time.Millisecond, ""},
		{"@x", "1500000", "1", 0, ""}, // not for this process
		{"@x", "9223372036854775807", own, 24 * time.Hour, ""},
		{"@x", "0", own, 0, "WATCHDOG_USEC"},
		{"@x", "-1", own, 0, "WATCHDOG_USEC"},
		{"@x", "1s", own, 0, "WATCHDOG_USEC"},
		{"@x", "1", "me", 0, "WATCHDOG_PID"},
	} {
		t.Setenv(Env, c.socket)
		t.Setenv(EnvWatchdog, c.usec)
		t.Setenv(EnvWatchdogPid, c.pid)
		got, err := Watchdog()
		if got != c.want || (err != nil) != (c.bad != "") || err != nil && (!errors.Is(err, ErrWatchdog) || !strings.Contains(err.Error(), c.bad)) {
			t.Errorf("%+v: %v, %v", c, got, err)
		}
	}
}
