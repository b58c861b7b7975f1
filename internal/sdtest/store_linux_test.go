package sdtest_test

import (
	"errors"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/handover-go/handover/internal/sdtest"
)

// TestSocketsKept: from systemd 254 on it keeps the sockets of a service whose parent is
// killed, so that nobody is refused who comes before the next one serves.
func TestSocketsKept(t *testing.T) {
	sdtest.EachFrom(t, 254, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		s.start(s.generate("--listen", "http=tcp://"+s.addr, "--workers", "2"))
		s.reload() // those of a later generation, too
		quit, done := make(chan struct{}), make(chan struct{})
		connected, refused := 0, 0
		go func() {
			defer close(done)
			for {
				select {
				case <-quit:
					return
				default:
				}
				c, err := net.DialTimeout("tcp", s.addr, 10*time.Second)
				switch {
				case errors.Is(err, syscall.ECONNREFUSED):
					refused++
				case err == nil:
					connected++
					c.Close()
				}
				time.Sleep(time.Millisecond)
			}
		}()
		for i := range 3 {
			m.Must(t, "kill", "--signal=KILL", "--kill-who=main", unit)
			s.until(func() string {
				if n := s.show("NRestarts"); n != strconv.Itoa(i+1) || s.show("ActiveState") != "active" {
					return "it was killed, and NRestarts is " + n
				}
				return ""
			})
			s.status(`"generation 1: 2 of 2 workers serve`)
		}
		close(quit)
		<-done
		if refused > 0 || connected == 0 {
			t.Errorf("%d connected, %d refused", connected, refused)
		}
		s.reload()
		s.check(s.load(25))
	})
}
