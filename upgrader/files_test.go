//go:build linux

package upgrader

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Releases under a symbolic link: the next one is what the link leads to by then,
// also when the running one has been deleted.
func TestSymlinkedReleases(t *testing.T) {
	t.Parallel()
	for _, by := range []string{"link", "directory"} {
		t.Run("started by the "+by, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, settings{})
			current := filepath.Join(s.dir, "current")
			release := func(n string) string { return filepath.Join(s.dir, "releases", n) }
			point := func(n string) {
				t.Helper()
				s.install(filepath.Join(release(n), "server"))
				if err := os.Symlink(release(n), current+".new"); err != nil {
					t.Fatal(err)
				}
				if err := os.Rename(current+".new", current); err != nil {
					t.Fatal(err)
				}
			}
			point("41")
			s.program = filepath.Join(current, "server")
			s.cwd = current
			if by == "directory" {
				s.cwd = release("41")
			}
			r := s.start()
			runs := func(exe, dir string) {
				t.Helper()
				if st := r.stats(); st.Exe != exe || st.Dir != dir {
					t.Errorf("executable %s, want %s; directory %s, want %s", st.Exe, exe, st.Dir, dir)
				}
			}
			runs(release("41")+"/server", release("41"))
			point("42")
			if err := os.RemoveAll(release("41")); err != nil {
				t.Fatal(err)
			}
			dir := release("42")
			if by == "directory" {
				dir = "/" // what it was started in is gone
			}
			r.upgrade()
			runs(release("42")+"/server", dir)
			point("43")
			if dir != "/" {
				dir = release("43")
			}
			r.upgrade()
			runs(release("43")+"/server", dir)
			r.stop()
		})
	}
}

// A new address under an old name is a new socket, and the old one goes; an old
// address under a new name is the old socket.
func TestAddresses(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	r := s.start()
	first := r.addr()

	s.configure(settings{Listen: []string{"tcp://localhost:0"}})
	r.upgrade()
	second := r.addr()
	if second == first {
		t.Error("a new address has led to the old socket")
	}
	r.serves(second)
	if c, err := net.Dial("tcp", first); err == nil {
		c.Close()
		t.Error("the old socket is open")
	}

	// With a port, so that nobody else can bind it.
	s.configure(settings{Listen: []string{"tcp://" + first}})
	r.upgrade()
	s.configure(settings{Listen: []string{"web=tcp://" + first}})
	r.upgrade()
	if st := r.stats(); len(st.Addrs) != 1 || st.Addrs["web"] != first {
		t.Errorf("sockets %v", st.Addrs)
	}
	r.serves(first)
	r.stop()
}

func TestUnixSockets(t *testing.T) {
	t.Parallel()
	s := newSite(t, settings{})
	path := func(name string) string { return filepath.Join(s.dir, name) }
	dial := func(name string) (net.Conn, error) { return net.Dial("unix", path(name)) }
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path("a"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()

	s.configure(settings{Listen: []string{"a=unix://" + path("a"), "b=unix://" + path("b")}})
	r := s.start()
	inode := func(name string) os.FileInfo {
		t.Helper()
		st, err := os.Lstat(path(name))
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	a, b := inode("a"), inode("b")
	unchanged := func() {
		t.Helper()
		if !os.SameFile(a, inode("a")) {
			t.Error("a is another file")
		}
		c, err := dial("a")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if pid, _ := r.request(c, "/"); pid != r.pid {
			t.Errorf("process %d serves, want %d", pid, r.pid)
		}
	}
	for range 3 {
		r.upgrade()
		unchanged()
		if !os.SameFile(b, inode("b")) {
			t.Error("b is another file")
		}
	}
	// A new program that fails leaves the files alone, and takes its own with it
	// when it ends in order.
	s.configure(settings{Listen: []string{"a=unix://" + path("a"), "c=unix://" + path("c")}, Mode: "fail in order"})
	if f := r.tryUpgrade(r.pid, patience); !f.is("rejected") {
		t.Errorf("%+v", f)
	}
	unchanged()
	if !os.SameFile(b, inode("b")) {
		t.Error("b is another file")
	}
	if _, err := os.Lstat(path("c")); err == nil {
		t.Error("c is left")
	}
	// A socket that is not wanted any more takes its file with it.
	s.configure(settings{Listen: []string{"renamed=unix://" + path("a")}})
	r.upgrade()
	unchanged()
	if _, err := os.Lstat(path("b")); err == nil {
		t.Error("b is left")
	}
	// One that is another process's stays.
	live, err := net.Listen("unix", path("live"))
	if err != nil {
		t.Fatal(err)
	}
	defer live.Close()
	s.configure(settings{Listen: []string{"a=unix://" + path("live")}})
	if f := r.tryUpgrade(r.pid, patience); f.Failed == nil || !strings.Contains(f.Err, "another process listens there") {
		t.Errorf("%+v", f)
	}
	unchanged()
	r.stop()
	if _, err := os.Lstat(path("a")); err == nil {
		t.Error("a is left")
	}
	if _, err := os.Lstat(path("live")); err != nil {
		t.Error(err)
	}
}
