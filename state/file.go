package state

import (
	"context"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
)

const (
	// settle is how long nothing may have happened to a file before it is read: it may
	// be being written. longest is how long that may go on.
	settle  = 50 * time.Millisecond
	longest = time.Second
	// CheckEvery is how often File and Dir look without having heard of a change: the
	// kernel does not tell of everything, such as what happens on another host's end of a
	// network file system. It is also what a value of theirs is confirmed by. Where they
	// can't be told at all, as past the limits of inotify(7), they look every second.
	CheckEvery = 10 * time.Second
	blindEvery = time.Second
)

// File is a Source for a file's content, a []byte. It notices within a moment what is
// written, put in its place by rename, removed, and restored, also behind symbolic
// links that lead there, such as those of a Kubernetes volume. What is written in place
// is read when nothing has been written for 50 ms, or after a second: a writer that
// pauses for longer is read half way, so rather rename, or see JSON and Check.
//
// The version is a hash of the content. A file that is missing, is no regular file, or
// is too large for a value is a failure of the source, with the error of package os.
func File(path string) Source { return &files{path: path, every: CheckEvery} }

// Dir is a Source for the content of the regular files of a directory, a
// map[string][]byte by name: those that belong together, and hence are to be seen
// together. Names that begin with a dot are left out, as are directories. Otherwise it
// is like File. What a Kubernetes volume has is read as of one moment.
func Dir(path string) Source { return &files{path: path, dir: true, every: CheckEvery} }

type files struct {
	path  string
	dir   bool
	every time.Duration
}

func (f *files) validate() error {
	if f.path == "" {
		return bad("the source has no path")
	}
	return nil
}

// Watch is Source.
func (f *files) Watch(ctx context.Context, report func(Found)) error {
	w := watches{known: map[string]os.FileInfo{}}
	var events <-chan fsnotify.Event
	var lost <-chan error
	if n, err := fsnotify.NewWatcher(); err == nil {
		defer n.Close()
		w.Watcher, events, lost = n, n.Events, n.Errors
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		report(f.look(&w))
		wait := f.every
		if w.blind {
			wait = min(wait, blindEvery)
		}
		timer.Reset(wait)
		for heard := false; !heard; {
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
				heard = true
			case ev := <-events:
				heard = w.trail.has(ev.Name)
			case <-lost: // some events were lost
				heard = true
			}
		}
		// More may follow.
		end := time.Now().Add(longest)
		timer.Reset(settle)
		for quiet := false; !quiet; {
			select {
			case <-ctx.Done():
				return nil
			case <-timer.C:
				quiet = true
			case ev := <-events:
				if w.trail.has(ev.Name) {
					timer.Reset(min(settle, time.Until(end)))
				}
			case <-lost:
				timer.Reset(min(settle, time.Until(end)))
			}
		}
	}
}

// look watches the places where something could happen, and then reads.
func (f *files) look(w *watches) Found {
	for range 3 { // if the links change meanwhile; after that, the next event
		t := trace(f.path, f.dir)
		w.set(t)
		found := Found{At: time.Now()}
		if f.dir {
			found.Value, found.Version, found.Err = readDir(f.path)
		} else {
			found.Value, found.Version, found.Err = readFile(f.path)
		}
		if maps.Equal(t.dirs, trace(f.path, f.dir).dirs) {
			return found
		}
	}
	return Found{Err: errUnsteady}
}

// watches are the directories that the kernel is asked about.
type watches struct {
	*fsnotify.Watcher // nil: it can't be asked
	trail             trail
	known             map[string]os.FileInfo
	blind             bool // it is not told everything
}

// set watches the directories of t and no others. A path that leads to another directory
// by now is watched anew.
func (w *watches) set(t trail) {
	w.trail = t
	if w.blind = w.Watcher == nil; w.blind {
		return
	}
	on := w.WatchList()
	for dir, was := range w.known {
		is, err := os.Stat(dir)
		if !t.dirs[dir] || err != nil || !os.SameFile(was, is) || !slices.Contains(on, dir) {
			_ = w.Remove(dir) // it may have gone by itself
			delete(w.known, dir)
		}
	}
	for dir := range t.dirs {
		if w.known[dir] != nil {
			continue
		}
		is, err := os.Stat(dir)
		if err == nil {
			err = w.Add(dir)
		}
		if err != nil {
			w.blind = true
			continue
		}
		w.known[dir] = is
	}
}
