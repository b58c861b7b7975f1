package anchor

import (
	"strings"
	"testing"
)

func TestParse(t *testing.T) {
	for _, c := range []struct {
		text    string
		mainPid int
		ready   bool
	}{
		{"", 0, false},
		{"READY=1", 0, true},
		{"READY=1\n", 0, true},
		{"READY=0\nSTATUS=READY=1", 0, false},
		{"XREADY=1", 0, false},
		{"STATUS=x\nMAINPID=12\nREADY=1", 12, true},
		{"MAINPID=12\nMAINPID=13", 12, false},
		{"MAINPID=x\nMAINPID=13", 0, false},
		{"MAINPID=", 0, false},
		{"MAINPID=0", 0, false},
		{"MAINPID=-1", 0, false},
		{"MAINPID= 12", 0, false},
		{"MAINPID=4294967297", 0, false}, // 1 in 32 bits
		{"MAINPID=2147483647", 2147483647, false},
	} {
		var n note
		n.parse(c.text)
		if n.mainPid != c.mainPid || n.ready != c.ready {
			t.Errorf("%q: %+v", c.text, n)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add("READY=1\nMAINPID=12\n")
	f.Add("MAINPID=-1\x00\n\n=")
	f.Fuzz(func(t *testing.T, text string) {
		var n note
		n.parse(text)
		if n.mainPid < 0 || n.mainPid > 0 && !strings.Contains(text, "MAINPID=") {
			t.Errorf("%q: pid %d", text, n.mainPid)
		}
		if n.ready && !strings.Contains("\n"+text+"\n", "\nREADY=1\n") {
			t.Errorf("%q: ready", text)
		}
	})
}
