package program

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"syscall"
)

// Whole says that a program's file ends before what has to be loaded of it, as after a copy on a
// disk that was full. The kernel executes such a one, which then dies when it comes to what is
// missing, perhaps much later. Of what is no such program, or can't be read, nothing is said.
func Whole(path string) error {
	// Not to wait for somebody who writes into a pipe.
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil
	}
	defer f.Close()
	if err := whole(f); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

func whole(f *os.File) error {
	st, err := f.Stat()
	if err != nil || !st.Mode().IsRegular() {
		return nil
	}
	if end := lastByte(f); end > uint64(st.Size()) {
		return fmt.Errorf("a truncated program, %d bytes of at least %d: copy it again, and put it in place by rename: %w", st.Size(), end, syscall.ENOEXEC)
	}
	return nil
}

// lastByte is where what has to be loaded ends in the file (PT_LOAD, elf(5)), 0 if that can't be
// told.
func lastByte(f io.ReaderAt) (end uint64) {
	ident := make([]byte, elf.EI_NIDENT)
	if _, err := f.ReadAt(ident, 0); err != nil || string(ident[:4]) != elf.ELFMAG {
		return 0
	}
	var order binary.ByteOrder = binary.LittleEndian
	if elf.Data(ident[elf.EI_DATA]) == elf.ELFDATA2MSB {
		order = binary.BigEndian
	}
	at := func(off, size int64, v any) bool {
		b := make([]byte, size)
		if _, err := f.ReadAt(b, off); err != nil {
			return false
		}
		return binary.Read(bytes.NewReader(b), order, v) == nil
	}
	load := func(p elf.ProgType, off, size uint64) {
		if p == elf.PT_LOAD {
			end = max(end, off+size)
		}
	}
	if elf.Class(ident[elf.EI_CLASS]) == elf.ELFCLASS32 {
		var h elf.Header32
		if !at(0, int64(binary.Size(h)), &h) {
			return 0
		}
		for i := range int64(h.Phnum) {
			var p elf.Prog32
			if at(int64(h.Phoff)+i*int64(h.Phentsize), int64(binary.Size(p)), &p) {
				load(elf.ProgType(p.Type), uint64(p.Off), uint64(p.Filesz))
			}
		}
		return end
	}
	var h elf.Header64
	if !at(0, int64(binary.Size(h)), &h) {
		return 0
	}
	for i := range int64(h.Phnum) {
		var p elf.Prog64
		if at(int64(h.Phoff)+i*int64(h.Phentsize), int64(binary.Size(p)), &p) {
			load(elf.ProgType(p.Type), p.Off, p.Filesz)
		}
	}
	return end
}
