package image

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"testing"

	"golang.org/x/sys/unix"
)

const envChild = "IMAGE_TEST_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(envChild) != "" {
		os.Stdout.WriteString("runs")
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Each copy has all of the program, can be executed, by a process that has not inherited
// it, and can't be changed.
func TestCopy(t *testing.T) {
	ways := map[string]place{"memory": inMemory, "disk": onDisk(t.TempDir()), "first": func(*os.File) (*os.File, error) { return Copy() }}
	for name, way := range ways {
		t.Run(name, func(t *testing.T) {
			src, err := os.Open(self)
			if err != nil {
				t.Fatal(err)
			}
			defer src.Close()
			f, err := way(src)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			path, err := Path(f)
			if err != nil {
				t.Fatal(err)
			}
			own, err := os.ReadFile(self)
			if err != nil {
				t.Fatal(err)
			}
			if got, err := os.ReadFile(path); err != nil || !bytes.Equal(got, own) {
				t.Errorf("a copy of %d bytes, not %d: %v", len(got), len(own), err)
			}
			cmd := exec.Command(path)
			cmd.Env = append(os.Environ(), envChild+"=1")
			if out, err := cmd.CombinedOutput(); err != nil || string(out) != "runs" {
				t.Errorf("executed: %q, %v", out, err)
			}
			if _, err := f.WriteAt([]byte("x"), 0); err == nil {
				t.Error("it can be written")
			}
			if Runs(path) {
				t.Error("it is not what runs here")
			}
			if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("it would be inherited: %#x, %v", flags, err)
			}
		})
	}
}

// Where nothing can be executed there is no copy: it would be found out too late.
func TestNowhere(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root may mount")
	}
	dir := t.TempDir()
	if err := unix.Mount("none", dir, "tmpfs", unix.MS_NOEXEC, ""); err != nil {
		t.Fatal(err)
	}
	defer unix.Unmount(dir, unix.MNT_DETACH)
	src, err := os.Open(self)
	if err != nil {
		t.Fatal(err)
	}
	defer src.Close()
	if f, err := onDisk(dir)(src); !errors.Is(err, errNoexec) {
		t.Errorf("%v, %v", f, err)
	}
}

func TestRuns(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]bool{exe: true, self: true, "/bin/sh": false, "/nowhere": false} {
		if got := Runs(path); got != want {
			t.Errorf("%s: %v", path, got)
		}
	}
}

// BenchmarkCopy is what a copy costs, per byte of the program.
func BenchmarkCopy(b *testing.B) {
	st, err := os.Stat(self)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(st.Size())
	for b.Loop() {
		f, err := Copy()
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}
