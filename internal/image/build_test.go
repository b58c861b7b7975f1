//go:build linux

package image

import (
	"bytes"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// copyOf writes a copy of a file, with more behind it.
func copyOf(t *testing.T, path, more string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	to := filepath.Join(t.TempDir(), "copy")
	if err := os.WriteFile(to, append(b, more...), 0o755); err != nil {
		t.Fatal(err)
	}
	return to
}

// TestRead: what this program, a program in C and a script say of themselves.
func TestRead(t *testing.T) {
	t.Parallel()
	b, err := Read("/proc/self/exe")
	if err != nil || b.Go != runtime.Version() || strings.Count(b.ID, "/") < 2 {
		t.Errorf("%+v, %v", b, err)
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command("go", "tool", "buildid", self).Output()
	if err != nil || strings.TrimSpace(string(out)) != b.ID {
		t.Errorf("%q, not %q, %v", b.ID, out, err)
	}
	if b, err := Read("/bin/sh"); err != nil || len(b.ID) != 40 || b.Go != "" {
		t.Errorf("%+v, %v", b, err)
	}
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	if b, err := Read(script); err != nil || b != (Build{Path: script}) {
		t.Errorf("%+v, %v", b, err)
	}
	if _, err := Read(script + "?"); !os.IsNotExist(err) {
		t.Error(err)
	}
}

func TestString(t *testing.T) {
	t.Parallel()
	for want, b := range map[string]Build{
		"":                           {Path: "/bin/x"},
		"v1.2.3":                     {ID: "abc", Version: "v1.2.3", Revision: "0123"},
		"revision 0123456789ab":      {ID: "abc", Version: "(devel)", Revision: "0123456789abcdef+"},
		"build 01234567890123456789": {ID: "0123456789012345678901234567890123456789"},
		"build abc":                  {ID: "abc"},
	} {
		if got := b.String(); got != want {
			t.Errorf("%+v: %q, not %q", b, got, want)
		}
	}
}

// TestSame: one file, a copy of it, another build; with an id, and without.
func TestSame(t *testing.T) {
	t.Parallel()
	script := func(text string) string {
		path := filepath.Join(t.TempDir(), "script")
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	one := script("#!/bin/sh\n")
	for _, c := range []struct {
		what, a, b string
		want       bool
	}{
		{"itself", "/bin/sh", "/bin/sh", true},
		{"a copy", "/bin/sh", copyOf(t, "/bin/sh", ""), true},
		{"another signature, one build", "/proc/self/exe", copyOf(t, "/proc/self/exe", "signed"), true},
		{"another program", "/bin/sh", "/proc/self/exe", false},
		{"a script and its copy", one, script("#!/bin/sh\n"), true},
		{"another script", one, script("#!/bin/sh\nexit\n"), false},
	} {
		if got, err := Same(c.a, c.b); got != c.want || err != nil {
			t.Errorf("%s: %v, %v", c.what, got, err)
		}
	}
	for _, c := range [][2]string{{one, one + "?"}, {one + "?", one}} {
		if _, err := Same(c[0], c[1]); !os.IsNotExist(err) {
			t.Error(err)
		}
	}
}

// section makes one with a note.
func section(name, desc string, kind uint32) []byte {
	b := binary.LittleEndian.AppendUint32(nil, uint32(len(name)))
	b = binary.LittleEndian.AppendUint32(b, uint32(len(desc)))
	b = binary.LittleEndian.AppendUint32(b, kind)
	for _, s := range []string{name, desc} {
		b = append(b, s...)
		b = append(b, make([]byte, (4-len(s)%4)%4)...)
	}
	return b
}

func TestNote(t *testing.T) {
	t.Parallel()
	other, wanted := section("GNU\x00", "other", 1), section("Go\x00\x00", "an id", 4)
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{wanted, "an id"},
		{bytes.Join([][]byte{other, wanted}, nil), "an id"},
		{other, ""},
		{section("Go\x00\x00", "an id", 5), ""},
		{nil, ""},
		{wanted[:len(wanted)-4], ""},
		{wanted[:11], ""},
		{section("Go\x00\x00", "", 4), ""},
	} {
		if got := note(c.b, binary.LittleEndian.Uint32, "Go\x00\x00", 4); string(got) != c.want {
			t.Errorf("%q: %q, not %q", c.b, got, c.want)
		}
	}
}

func FuzzNote(f *testing.F) {
	f.Add(section("GNU\x00", "other", 1))
	f.Add(section("Go\x00\x00", "an id", 4))
	f.Add(bytes.Repeat([]byte{0xff}, 40))
	f.Fuzz(func(t *testing.T, b []byte) {
		if got := note(b, binary.LittleEndian.Uint32, "Go\x00\x00", 4); len(got) > 0 && !bytes.Contains(b, got) {
			t.Error(got)
		}
	})
}

// FuzzID: a file may hold anything.
func FuzzID(f *testing.F) {
	head, err := os.ReadFile("/bin/true")
	if err != nil {
		f.Skip(err)
	}
	f.Add(head[:min(len(head), 4096)])
	f.Fuzz(func(t *testing.T, b []byte) { buildID(bytes.NewReader(b)) })
}
