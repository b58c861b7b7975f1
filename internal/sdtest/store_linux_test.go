package sdtest_test

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
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
			s.status(`"generation 2: 2 of 2 workers serve`)
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

// TestConfigurationKept: from systemd 254 on it keeps what the service was configured with,
// too, so that a parent whose file is broken by now comes up when the one before it is
// killed. After a stop the file counts.
func TestConfigurationKept(t *testing.T) {
	sdtest.EachFrom(t, 254, func(t *testing.T, m *sdtest.Machine) {
		s := newShop(t, m)
		file := filepath.Join(s.dir, "shop.toml")
		write := func(text string) {
			t.Helper()
			if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		good := s.text("listen = [\"http=tcp://{addr}\"]\n")
		write(good)
		s.start(map[string]string{unit: plainUnit("-f {dir}/shop.toml", "FileDescriptorStoreMax=16", "RestartPreventExitStatus=2")})
		s.reload()
		write("lisen = []\n")
		s.refused()
		for i := range 2 {
			m.Must(t, "kill", "--signal=KILL", "--kill-who=main", unit)
			s.until(func() string {
				if n := s.show("NRestarts"); n != strconv.Itoa(i+1) || s.show("ActiveState") != "active" {
					return "it was killed, and NRestarts is " + n
				}
				return ""
			})
			s.status(`: 2 of 2 workers serve`)
		}
		s.until(func() string {
			if j := m.Journal(unit); !strings.Contains(j, "goes on with what it had before its parent died") {
				return "the journal does not say what is in effect: " + j
			}
			return ""
		})
		if out, code := m.Systemctl("restart", unit); code == 0 {
			t.Errorf("restarted with a broken file: %s", out)
		}
		write(good)
		m.Must(t, "restart", unit)
		s.reload()
		s.check(s.load(25))
	})
}
