package worker

import (
	"testing"

	"golang.org/x/sys/unix"

	homes "github.com/handover-go/handover/internal/home"
)

// TestGoesAlone: who drains when its parent has died gives its connections away if others serve on,
// and takes those of others if all drain. Two who give, and nobody who takes, would give them to
// one another; one who takes while others serve tells its clients to connect anew.
func TestGoesAlone(t *testing.T) {
	for name, tc := range map[string]struct {
		served, told, stops, kept bool
		want                      bool
	}{
		"replaced":                       {served: true, told: true, kept: true, want: true},
		"the service stops":              {served: true, told: true, stops: true, kept: true},
		"there will be no other parent":  {served: true, kept: false},
		"replaced, and no other parent":  {served: true, told: true},
		"another parent has not come":    {served: true, kept: true},
		"not served yet, others do":      {kept: true, want: true},
		"not served yet, and nobody has": {},
	} {
		t.Run(name, func(t *testing.T) {
			report, hear, err := homes.Pair()
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(report)
			if tc.kept {
				defer unix.Close(hear)
			} else {
				unix.Close(hear)
			}
			w := &Worker{home: home{fd: report, stops: tc.stops}, going: tc.served, mayExit: make(chan struct{})}
			if tc.told {
				w.release()
			}
			if got := w.goesAlone(); got != tc.want {
				t.Errorf("others serve on: %t", got)
			}
		})
	}
}
