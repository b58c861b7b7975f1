//go:build linux

package anchor

import (
	"reflect"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/listen"
)

// FuzzState: whatever the image before has handed over, nothing panics, there are a process and a
// descriptor or an error, and what was understood can be handed over again.
func FuzzState(f *testing.F) {
	s := state{Ready: true, Stops: 2, Asked: syscall.SIGTERM, Store: []listen.Descriptor{{Fd: 7, Name: "http"}}, Statuses: map[int]uint32{4: 9}}
	s.note(time.Now(), map[int]time.Time{12: time.Now()})
	f.Add("12 3 " + encode(s))
	for _, v := range []string{"", "12", "12 3", "12 3 ", "x 3 {}", "-1 3 {}", "1 2 {}", `12 3 {"left":{"-1":"x"}}`, `12 3 {"clock":{},"up":"0000-00-00"}`, "12 3 {} {}"} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		pid, inbox, s, err := parseState(v)
		if err != nil {
			return
		}
		if pid < 1 || inbox < 3 {
			t.Errorf("process %d, descriptor %d", pid, inbox)
		}
		if s == nil {
			return
		}
		s.times(time.Now())
		var all statuses
		all.resume(s.Statuses)
		_, _, again, err := parseState("1 3 " + encode(*s))
		if err != nil || again == nil {
			t.Fatalf("%+v is %s: %v", *s, encode(*s), err)
		}
		if _, _, third, _ := parseState("1 3 " + encode(*again)); !reflect.DeepEqual(again, third) {
			t.Errorf("%+v is %+v", *again, third)
		}
	})
}
