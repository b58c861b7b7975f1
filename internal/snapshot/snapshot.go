// Package snapshot keeps a text in a file in such a way that whoever reads it finds the last
// one that was written whole, at whatever moment its writer was killed.
//
// The file has two places, in which texts are written in turn, and a header of each, which is
// written last and says what the text has to look like.
package snapshot

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"os"
)

// MaxText is how long a text may be, in bytes.
const MaxText = 16 << 20

const (
	header  = 24 // number, length, checksum of the text, checksum of these
	headers = 4096
)

// place is where a text of that number is, and its header.
func place(number uint64) (text, head int64) {
	i := int64(number % 2)
	return headers + i*MaxText, i * header
}

// Writer writes to a file. One goroutine uses it.
type Writer struct {
	f      *os.File
	number uint64
}

// NewWriter writes to f, which stays the caller's, after what is there. Nobody else may write.
func NewWriter(f *os.File) *Writer {
	_, number := newest(f)
	return &Writer{f: f, number: number}
}

// Write makes text the one that is read.
func (w *Writer) Write(text []byte) error {
	if len(text) > MaxText {
		return fmt.Errorf("snapshot: %d bytes: at most %d are kept", len(text), MaxText)
	}
	at, head := place(w.number + 1)
	if _, err := w.f.WriteAt(text, at); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	b := binary.BigEndian.AppendUint64(nil, w.number+1)
	b = binary.BigEndian.AppendUint64(b, uint64(len(text)))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(text))
	b = binary.BigEndian.AppendUint32(b, crc32.ChecksumIEEE(b))
	if _, err := w.f.WriteAt(b, head); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	w.number++
	return nil
}

// Read returns the last text that was written, nil if there is none.
func Read(f *os.File) []byte {
	text, _ := newest(f)
	return text
}

func newest(f *os.File) (text []byte, number uint64) {
	for i := range uint64(2) {
		if t, n, ok := read(f, i); ok && n > number {
			text, number = t, n
		}
	}
	return text, number
}

// read reads what is in a place.
func read(f *os.File, i uint64) (text []byte, number uint64, ok bool) {
	at, head := place(i)
	b := make([]byte, header)
	if _, err := f.ReadAt(b, head); err != nil {
		return nil, 0, false
	}
	number = binary.BigEndian.Uint64(b)
	size, sum := binary.BigEndian.Uint64(b[8:]), binary.BigEndian.Uint32(b[16:])
	if number == 0 || number%2 != i || size > MaxText || binary.BigEndian.Uint32(b[20:]) != crc32.ChecksumIEEE(b[:20]) {
		return nil, 0, false
	}
	text = make([]byte, size)
	if _, err := f.ReadAt(text, at); err != nil && size > 0 || crc32.ChecksumIEEE(text) != sum {
		return nil, 0, false
	}
	return text, number, true
}
