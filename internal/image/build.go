package image

import (
	"crypto/sha256"
	"debug/buildinfo"
	"debug/elf"
	"encoding/hex"
	"fmt"
	"io"
	"os"
)

// Build is what a program's file says of itself, as far as it does.
type Build struct {
	Path string `json:"path,omitempty"`
	// ID is that of the build: Go's, or else the one that linkers write ("GNU build id").
	ID string `json:"id,omitempty"`
	// Of a Go program: the main module's version, and the revision that it was built from,
	// with a "+" behind it if something had been changed.
	Version  string `json:"version,omitempty"`
	Revision string `json:"revision,omitempty"`
	Go       string `json:"go,omitempty"` // the version of Go
}

// Read looks into the file at a path. What the file does not say is left out; an error is
// about the file as such.
func Read(path string) (Build, error) {
	b := Build{Path: path}
	f, err := os.Open(path)
	if err != nil {
		return b, err
	}
	defer f.Close()
	b.ID = buildID(f)
	info, err := buildinfo.Read(f)
	if err != nil {
		return b, nil // no Go program
	}
	b.Go, b.Version = info.GoVersion, info.Main.Version
	for _, s := range info.Settings {
		switch {
		case s.Key == "vcs.revision":
			b.Revision = s.Value + b.Revision
		case s.Key == "vcs.modified" && s.Value == "true":
			b.Revision += "+"
		}
	}
	return b, nil
}

// String names a build in one word or two, or returns "".
func (b Build) String() string {
	id := b.ID[:min(len(b.ID), 20)]
	switch {
	case b.Version != "" && b.Version != "(devel)":
		return b.Version
	case b.Revision != "":
		return "revision " + b.Revision[:min(len(b.Revision), 12)]
	case id != "":
		return "build " + id
	}
	return ""
}

// buildID is what an ELF file says, or "".
func buildID(r io.ReaderAt) string {
	f, err := elf.NewFile(r)
	if err != nil {
		return ""
	}
	for _, n := range []struct {
		section, name string
		kind          uint32
		text          bool
	}{{".note.go.buildid", "Go\x00\x00", 4, true}, {".note.gnu.build-id", "GNU\x00", 3, false}} {
		s := f.Section(n.section)
		if s == nil || s.Type != elf.SHT_NOTE || s.Size > maxNote {
			continue
		}
		data, err := s.Data()
		if err != nil {
			continue
		}
		switch desc := note(data, f.ByteOrder.Uint32, n.name, n.kind); {
		case len(desc) == 0:
		case n.text:
			return string(desc)
		default:
			return hex.EncodeToString(desc)
		}
	}
	return ""
}

// maxNote is how long a section with a build's id may be, in bytes.
const maxNote = 64 << 10

// note finds one in a section of notes (elf(5)), and returns its content, or nil.
func note(b []byte, number func([]byte) uint32, name string, kind uint32) []byte {
	for len(b) >= 12 {
		nameLen, descLen, k := uint64(number(b)), uint64(number(b[4:])), number(b[8:])
		b = b[12:]
		nameEnd := (nameLen + 3) &^ 3
		if nameEnd+descLen > uint64(len(b)) {
			return nil
		}
		if k == kind && string(b[:nameLen]) == name {
			return b[nameEnd : nameEnd+descLen]
		}
		b = b[min(uint64(len(b)), nameEnd+(descLen+3)&^3):]
	}
	return nil
}

// identity is what two files of the same build have in common.
func (b Build) identity() (string, error) {
	if b.ID != "" {
		return b.ID, nil
	}
	f, err := os.Open(b.Path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", fmt.Errorf("%s: %w", b.Path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// Same reports whether the files at two paths are one, or of one build.
func Same(running, disk string) (bool, error) {
	one, err := os.Stat(running)
	if err != nil {
		return false, err
	}
	two, err := os.Stat(disk)
	if err != nil {
		return false, err
	}
	if os.SameFile(one, two) {
		return true, nil
	}
	var ids [2]string
	for i, path := range []string{running, disk} {
		b, err := Read(path)
		if err == nil {
			ids[i], err = b.identity()
		}
		if err != nil {
			return false, err
		}
	}
	return ids[0] == ids[1], nil
}
