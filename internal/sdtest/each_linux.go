package sdtest

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// EnvRoots is the environment variable that names root directories, separated by ":",
// whose systemd is booted beside the host's own.
const EnvRoots = "SDTEST_ROOTFS"

// tried is a systemd that was booted, or was not.
type tried struct {
	root string
	m    *Machine
	err  error
}

// all are the machines of this process.
var all struct {
	sync.Mutex
	booted bool
	err    error // there can be none
	list   []tried
}

// Each runs a test, as a subtest named after its version, under each systemd there is at
// the same time, and returns when all have ended: the host's own and those of EnvRoots. Where there can be none, or the host's own does
// not boot, the test is skipped with the reason; one of EnvRoots that does not boot
// makes it fail.
func Each(t *testing.T, test func(t *testing.T, m *Machine)) {
	t.Helper()
	EachFrom(t, 0, test)
}

// EachFrom is Each for what older versions don't have. They are left out.
func EachFrom(t *testing.T, oldest int, test func(t *testing.T, m *Machine)) {
	t.Helper()
	list, err := machines()
	if err != nil {
		t.Skip(err)
	}
	run := false
	t.Run("systemd", func(t *testing.T) { // returns when its parallel subtests have
		for _, l := range list {
			switch {
			case l.err != nil && l.root == "/":
				t.Run("host", func(t *testing.T) { t.Skip(l.err) })
			case l.err != nil:
				t.Run(filepath.Base(l.root), func(t *testing.T) { t.Fatal(l.err) })
			case l.m.Version >= oldest:
				t.Run(strconv.Itoa(l.m.Version), func(t *testing.T) {
					t.Parallel()
					l.m.alive(t)
					test(t, l.m)
				})
			default:
				continue
			}
			run = true
		}
	})
	if !run {
		t.Skipf("no systemd of version %d or later (set %s)", oldest, EnvRoots)
	}
}

// machines boots all that there are, once, all at the same time.
func machines() ([]tried, error) {
	all.Lock()
	defer all.Unlock()
	if all.booted || all.err != nil {
		return all.list, all.err
	}
	cgroups, err := host()
	if err == nil {
		err = sweep(cgroups)
	}
	if all.err = err; err != nil {
		return nil, err
	}
	roots := append([]string{"/"}, filepath.SplitList(os.Getenv(EnvRoots))...)
	all.list, all.booted = make([]tried, len(roots)), true
	var wg sync.WaitGroup
	for i, root := range roots {
		all.list[i].root = root
		wg.Go(func() { all.list[i].m, all.list[i].err = boot(root, cgroups, machineName(i)) })
	}
	wg.Wait()
	return all.list, nil
}

// Stop stops all that Each has booted. TestMain calls it when the tests have run. Its
// error says what is left behind.
func Stop() (err error) {
	all.Lock()
	defer all.Unlock()
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, l := range all.list {
		if l.err == nil {
			wg.Go(func() {
				stopped := l.m.stop()
				mu.Lock()
				defer mu.Unlock()
				err = errors.Join(err, stopped)
			})
		}
	}
	wg.Wait()
	all.list, all.booted = nil, false
	return err
}

// alive fails a test whose machine has gone.
func (m *Machine) alive(t *testing.T) {
	t.Helper()
	select {
	case <-m.ended:
		t.Fatalf("systemd %d has ended in an earlier test", m.Version)
	default:
	}
}

// version asks what was booted.
func (m *Machine) version() (int, error) {
	out, code := m.Systemctl("--version")
	fields := strings.Fields(out)
	if code != 0 || len(fields) < 2 {
		return 0, fmt.Errorf("systemctl --version: %d, %q", code, out)
	}
	return strconv.Atoi(fields[1])
}
