package anchor

import (
	"testing"

	"github.com/handover-go/handover/internal/sdnotify"
)

func TestMainPid(t *testing.T) {
	for text, want := range map[string]int{
		"": 0, "READY=1": 0, "MAINPID=": 0, "MAINPID=0": 0, "MAINPID=-1": 0, "MAINPID= 12": 0,
		"STATUS=x\nMAINPID=12\nREADY=1": 12,
		"MAINPID=x\nMAINPID=13":         0,
		"MAINPID=4294967297":            0, // 1 in 32 bits
		"MAINPID=2147483647":            2147483647,
	} {
		if n := newNote(sdnotify.Note{Text: text}); n.mainPid != want {
			t.Errorf("%q: %d", text, n.mainPid)
		}
	}
}
