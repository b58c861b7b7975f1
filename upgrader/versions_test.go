//go:build linux

package upgrader

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// speaking are the settings of a program that speaks the versions from min to max.
func speaking(min, max int) settings {
	return settings{Listen: []string{"tcp://127.0.0.1:0"}, Yield: "give", Speaks: [2]int{min, max}}
}

// An upgrade from an older version to a newer one works, and the way back.
func TestAcrossVersions(t *testing.T) {
	t.Parallel()
	s := newSite(t, speaking(1, 1))
	r := s.start()
	addr := r.addr()
	for _, next := range []settings{
		speaking(1, successionVersion), speaking(1, 1), speaking(1, 1),
		speaking(1, successionVersion), speaking(successionVersion, successionVersion+1),
		speaking(1, successionVersion),
	} {
		s.configure(next)
		old := r.upgrade()
		r.serves(addr)
		r.await(fmt.Sprintf("inherited %d settings true\n", old))
	}
	if st := r.stats(); st.Generation != 7 {
		t.Errorf("generation %d", st.Generation)
	}
	r.stop()
}

// Versions that have nothing in common: whichever side finds it out, nothing changes.
func TestNoCommonVersion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		old, new settings
		is, says string
	}{
		"the old one finds it": {speaking(1, 1), speaking(2, 2), "version",
			"no common version of the succession format: the other side speaks 2 to 2, this one 1"},
		"the new one finds it": {speaking(2, 2), speaking(1, 1), "rejected",
			"no common version of the succession format: the other side speaks 2 to 2, this one 1"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, c.old)
			r := s.start()
			addr, before := r.addr(), r.stats()
			s.configure(c.new)
			for range 3 {
				a := r.tryUpgrade(r.pid, patience)
				if !a.is(c.is) || !strings.Contains(a.Err, c.says) {
					t.Fatalf("%+v", a)
				}
				r.serves(addr)
				if n := signalMarked(s.mark, 0, nil); n != 1 {
					t.Fatalf("%d processes are left, not the one that serves", n)
				}
			}
			until(t, "no more descriptors than before", func() bool { return len(r.stats().FDs) <= len(before.FDs) })
			if n := r.lines("resumed"); n != 0 {
				t.Errorf("it had given up %d times", n)
			}
			s.configure(c.old)
			r.upgrade()
			r.serves(addr)
			r.stop()
		})
	}
}

// What a new program had started and entrusted to its predecessor drains when it
// fails. A predecessor that knows nothing of that is not told: it ends it with the rest.
func TestWardAcrossVersions(t *testing.T) {
	t.Parallel()
	for version, drains := range map[int]int{1: 0, successionVersion: 1} {
		t.Run(fmt.Sprint(version), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, speaking(1, version))
			r := s.start()
			addr := r.addr()
			next := speaking(1, successionVersion)
			next.Mode = "ward"
			s.configure(next)
			a := r.tryUpgrade(r.pid, patience)
			if !a.is("rejected") || a.Failed.Reason != "the second worker does not come up" {
				t.Errorf("%+v", a)
			}
			until(t, "only the service is left", func() bool { return signalMarked(s.mark, 0, nil) == 1 })
			r.serves(addr)
			r.stop()
			if n := r.lines("the ward drains\n"); n != drains {
				t.Errorf("the ward drained %d times, not %d", n, drains)
			}
		})
	}
}

// entrustWard starts a process that serves already, as far as anybody knows.
func entrustWard(up *Upgrader) {
	r, w, err := os.Pipe()
	check(err)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env, cmd.Stdout = append(os.Environ(), envProgram+"=ward"), w
	check(cmd.Start())
	w.Close()
	_, err = io.ReadFull(r, make([]byte, len("ready\n")))
	check(err)
	fd, err := unix.PidfdOpen(cmd.Process.Pid, 0)
	check(err)
	check(up.Entrust(Ward{
		Pid: cmd.Process.Pid, Pidfd: os.NewFile(uintptr(fd), "pidfd"), Output: []*os.File{r},
		Signal: syscall.SIGTERM, Timeout: patience,
	}))
}

func wardMain() {
	term := make(chan os.Signal, 1)
	signal.Notify(term, syscall.SIGTERM)
	fmt.Println("ready")
	<-term
	fmt.Println("the ward drains")
}
