package state

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// maxFiles is how many files of a directory are read.
const maxFiles = 1000

// errUnsteady: what changes all the time can't be read.
var errUnsteady = errors.New("it changes while it is being read")

// tries is how often what changes meanwhile is read again.
const tries = 5

// readFile reads a regular file's content, as it was at one moment as far as that can be
// seen, and its hash.
func readFile(path string) (content []byte, version string, err error) {
	for range tries {
		if content, err = readOnce(path); !errors.Is(err, errUnsteady) {
			break
		}
	}
	if err != nil {
		return nil, "", err
	}
	return content, digest(content), nil
}

func readOnce(path string) ([]byte, error) {
	before, err := stat(path)
	if err != nil {
		return nil, err
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	content, err := io.ReadAll(io.LimitReader(f, MaxValue+1))
	if err != nil {
		return nil, err
	}
	if len(content) > MaxValue {
		return nil, fmt.Errorf("%s: more than %d bytes", path, MaxValue)
	}
	during, err := f.Stat()
	if err != nil {
		return nil, err
	}
	after, err := stat(path)
	if err != nil || !same(before, during) || !same(before, after) || int64(len(content)) != after.Size() {
		return nil, fmt.Errorf("%s: %w", path, errUnsteady)
	}
	return content, nil
}

// stat is of regular files only: to open another might wait for ever.
func stat(path string) (fs.FileInfo, error) {
	st, err := os.Stat(path)
	if err == nil && !st.Mode().IsRegular() {
		err = fmt.Errorf("%s: not a regular file: %v", path, st.Mode())
	}
	return st, err
}

func same(a, b fs.FileInfo) bool {
	return os.SameFile(a, b) && a.Size() == b.Size() && a.ModTime().Equal(b.ModTime())
}

// readDir reads the regular files of a directory, as they were at one moment as far as
// that can be seen, and a hash of all.
func readDir(path string) (content map[string][]byte, version string, err error) {
	for range tries {
		if content, err = readDirOnce(path); !errors.Is(err, errUnsteady) {
			break
		}
	}
	if err != nil {
		return nil, "", err
	}
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(content)) {
		for _, b := range [][]byte{[]byte(name), content[name]} {
			_ = binary.Write(sum, binary.BigEndian, int64(len(b)))
			sum.Write(b)
		}
	}
	return content, hex.EncodeToString(sum.Sum(nil)[:16]), nil
}

func readDirOnce(path string) (map[string][]byte, error) {
	before, err := list(path)
	if err != nil {
		return nil, err
	}
	content, size := map[string][]byte{}, 0
	for name := range before {
		b, err := readOnce(filepath.Join(path, name))
		if errors.Is(err, fs.ErrNotExist) {
			err = fmt.Errorf("%s: %w", path, errUnsteady)
		}
		if err != nil {
			return nil, err
		}
		if size += len(b); size > MaxValue {
			return nil, fmt.Errorf("%s: the files have more than %d bytes", path, MaxValue)
		}
		content[name] = b
	}
	after, err := list(path)
	if err != nil {
		return nil, err
	}
	if !maps.EqualFunc(before, after, same) {
		return nil, fmt.Errorf("%s: %w", path, errUnsteady)
	}
	return content, nil
}

// list are the files that count.
func list(path string) (map[string]fs.FileInfo, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	found := map[string]fs.FileInfo{}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), ".") {
			continue
		}
		st, err := os.Stat(filepath.Join(path, e.Name()))
		if errors.Is(err, fs.ErrNotExist) {
			continue // a link that leads nowhere, or it has just gone
		}
		if err != nil {
			return nil, err
		}
		if st.Mode().IsRegular() {
			found[e.Name()] = st
		}
		if len(found) > maxFiles {
			return nil, fmt.Errorf("%s: more than %d files", path, maxFiles)
		}
	}
	return found, nil
}
