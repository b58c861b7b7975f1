package state

import (
	"os"
	"path/filepath"
	"strings"
)

// trail is the way to a file: where something has to happen for it to become another.
type trail struct {
	dirs  map[string]bool // to be watched
	names map[string]bool // of which something may happen there
	all   string          // a directory of which every name counts
}

// has reports whether something that happened to that path may concern the file.
func (t trail) has(path string) bool {
	return t.names[path] || t.dirs[path] || t.all != "" && filepath.Dir(path) == t.all
}

// trace finds the way to path: each symbolic link on it, and the end. What is missing may
// come, so that the way ends before it. A directory's way includes its entries that are
// links.
func trace(path string, dir bool) trail {
	t := trail{dirs: map[string]bool{}, names: map[string]bool{}}
	if abs, err := filepath.Abs(path); err == nil {
		path = abs
	}
	end, ok := t.walk(path)
	if !dir || !ok {
		return t
	}
	t.dirs[end], t.all = true, end
	entries, _ := os.ReadDir(end)
	for _, e := range entries[:min(len(entries), maxFiles)] {
		if e.Type()&os.ModeSymlink != 0 {
			t.walk(filepath.Join(end, e.Name()))
		}
	}
	return t
}

// maxLinks is how many links a way may have, as in the kernel (path_resolution(7)).
const maxLinks = 40

// walk adds the way to an absolute path, and returns where it ends; false if there is
// nothing.
func (t trail) walk(path string) (end string, ok bool) {
	volume := filepath.VolumeName(path)
	root := volume + string(filepath.Separator)
	at, rest := root, split(path[len(volume):])
	for links := 0; len(rest) > 0; {
		part := rest[0]
		rest = rest[1:]
		switch part {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, part)
		st, err := os.Lstat(next)
		if err != nil {
			t.note(at, next)
			return next, false
		}
		if st.Mode()&os.ModeSymlink == 0 {
			if len(rest) == 0 {
				t.note(at, next)
			}
			at = next
			continue
		}
		t.note(at, next)
		target, err := os.Readlink(next)
		if links++; err != nil || links > maxLinks {
			return next, false
		}
		if filepath.IsAbs(target) {
			at = root
		}
		rest = append(split(target), rest...)
	}
	return at, true
}

func (t trail) note(dir, name string) { t.dirs[dir], t.names[name] = true, true }

func split(path string) []string { return strings.Split(path, string(filepath.Separator)) }
