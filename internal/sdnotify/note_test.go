package sdnotify

import (
	"strings"
	"testing"
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
