//go:build linux

package control

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"testing"
)

// setRun has systemd's directories elsewhere.
func setRun(t *testing.T, dir string) {
	t.Helper()
	before := run
	run = dir
	t.Cleanup(func() { run = before })
}

func TestFind(t *testing.T) {
	dir := filepath.Dir(socket(t))
	runtimeDir(t, dir+":/else", "", "")
	setRun(t, filepath.Join(dir, "run"))
	none := fmt.Sprintf("no service with a control socket runs (looked in %s and in %s/NAME): say which with --name or --control", dir, run)
	if _, err := Find(); err == nil || err.Error() != none {
		t.Errorf("%v", err)
	}
	// What a dead service has left does not count.
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: Path("", "dead"), Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	ln.SetUnlinkOnClose(false)
	ln.Close()
	if _, err := Find(); err == nil || err.Error() != none {
		t.Errorf("%v", err)
	}
	serve(t, Path("", "shop"), nil)
	if path, err := Find(); err != nil || path != dir+"/shop.sock" {
		t.Errorf("%s, %v", path, err)
	}
	serve(t, Path("", "blog"), nil)
	if _, err := Find(); err == nil || err.Error() != "2 services run: say which with --name, one of blog, shop" {
		t.Errorf("%v", err)
	}
}

// named is a service of that name.
func named(name string) *fake {
	return &fake{status: func() (Status, error) { return Status{Service: name}, nil }}
}

// TestFindRun: services that systemd has made directories for are found by who is no part
// of them, and nothing else that has a socket of such a name is taken for one.
func TestFindRun(t *testing.T) {
	dir := filepath.Dir(socket(t))
	runtimeDir(t, "", "", dir)
	setRun(t, dir)
	path := func(name string) string {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
		return filepath.Join(dir, name, name+".sock")
	}
	if got := Locate("shop"); got != Path(Auto, "shop") {
		t.Errorf("where there is none: %s", got)
	}
	serve(t, path("shop"), named("shop"))
	serve(t, path("other"), named("of another name"))
	ln, err := net.Listen("unix", path("docker"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fmt.Fprintln(c, "I speak another language")
			c.Close()
		}
	}()
	if err := os.WriteFile(path("file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	want := path("shop")
	if got := Locate("shop"); got != want {
		t.Errorf("%s, want %s", got, want)
	}
	if got, err := Find(); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
	// One part of the service looks at its own.
	runtimeDir(t, filepath.Join(dir, "shop"), "", "")
	if got, err := Find(); err != nil || got != want {
		t.Errorf("%s, %v, want %s", got, err, want)
	}
}
