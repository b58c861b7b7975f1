//go:build linux

package control

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// runtimeDir says where control sockets are to be.
func runtimeDir(t *testing.T, list, xdg, tmp string) {
	t.Helper()
	t.Setenv("RUNTIME_DIRECTORY", list)
	t.Setenv("XDG_RUNTIME_DIR", xdg)
	t.Setenv("TMPDIR", tmp)
}

func TestPath(t *testing.T) {
	tmp := t.TempDir()
	own := fmt.Sprintf("%s/handover-%d/shop.sock", tmp, os.Geteuid())
	for _, c := range []struct{ list, xdg, path, want string }{
		{"/run/a:/run/b", "/x", "", "/run/a/shop.sock"},
		{"/run/a", "/x", Auto, "/run/a/shop.sock"},
		{"", "/x", Auto, "/x/handover/shop.sock"},
		{"", "", "", own},
		{"/run/a", "/x", "/else/where", "/else/where"},
		{"", "", "here", "here"},
	} {
		runtimeDir(t, c.list, c.xdg, tmp)
		if got := Path(c.path, "shop"); got != c.want {
			t.Errorf("%+v: %s", c, got)
		}
	}
}

// TestNoTemporary: in a container with a read-only root there is memory to share.
func TestNoTemporary(t *testing.T) {
	own := fmt.Sprintf("handover-%d", os.Geteuid())
	there, none := t.TempDir(), "/nowhere/at/all"
	defer func(dir string) { shared = dir }(shared)
	for _, c := range []struct{ tmp, shm, want string }{
		{there, there + "/shm", there},
		{none, there, there},
		{none, none, none}, // which Prepare complains of
	} {
		runtimeDir(t, "", "", c.tmp)
		shared = c.shm
		if got, want := Path(Auto, "shop"), filepath.Join(c.want, own, "shop.sock"); got != want {
			t.Errorf("%+v: %s, not %s", c, got, want)
		}
	}
	if err := Prepare(Path(Auto, "shop")); !errors.Is(err, ErrNowhere) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
	if err := Prepare(none + "/s"); err != nil {
		t.Errorf("somebody has decided on it: %v", err)
	}
}

func TestPrepare(t *testing.T) {
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		make func(dir string)
		want string // of the error; "" if there is none
	}{
		"missing":   {func(string) {}, ""},
		"there":     {func(dir string) { do(os.Mkdir(dir, 0o700)) }, ""},
		"a symlink": {func(dir string) { do(os.Mkdir(dir+".d", 0o700), os.Symlink(dir+".d", dir)) }, "it is no directory"},
		"dangling":  {func(dir string) { do(os.Symlink(dir+".d", dir)) }, "it is no directory"},
		"a file":    {func(dir string) { do(os.WriteFile(dir, nil, 0o600)) }, "it is no directory"},
		"open to others": {func(dir string) { do(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o755)) },
			"others may use it (mode -rwxr-xr-x): chmod 700 it"},
		"open to a group": {func(dir string) { do(os.Mkdir(dir, 0o700), os.Chmod(dir, 0o710)) }, "others may use it"},
		"somebody else's": {func(dir string) { do(os.Mkdir(dir, 0o700), os.Chown(dir, 12345, -1)) }, "it belongs to user 12345"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "somebody else's" && os.Geteuid() != 0 {
				t.Skip("only root can give a directory away")
			}
			tmp := t.TempDir()
			runtimeDir(t, "", "", tmp)
			dir := filepath.Dir(Path("", "shop"))
			c.make(dir)
			err := Prepare(Path("", "shop"))
			if c.want != "" {
				// Nor does anybody ask there.
				if _, err := dial(Path("", "shop")); !errors.Is(err, ErrDirectory) {
					t.Errorf("it is asked: %v", err)
				}
				if !errors.Is(err, ErrDirectory) || !strings.Contains(err.Error(), c.want) || !strings.Contains(err.Error(), dir) {
					t.Errorf(" got %v\nwant %s", err, c.want)
				}
				return
			}
			st, serr := os.Lstat(dir)
			if err != nil || serr != nil || st.Mode() != os.ModeDir|0o700 {
				t.Errorf("%v, %v, %v", err, st.Mode(), serr)
			}
		})
	}
	// What somebody has decided on is neither made nor judged.
	dir := t.TempDir()
	runtimeDir(t, dir+"/list", "", dir)
	do(Prepare(Path("", "shop")), Prepare(dir+"/nowhere/s"))
	if _, err := os.Stat(dir + "/list"); err == nil {
		t.Error("it was made")
	}
	runtimeDir(t, "", dir+"/nowhere", dir)
	if err := Prepare(Path("", "shop")); !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "directory of the control socket: ") {
		t.Errorf("without XDG_RUNTIME_DIR itself: %v", err)
	}
}
