package handover

import (
	"fmt"
	"os"
	"sync"

	"github.com/handover-go/handover/internal/image"
	"github.com/handover-go/handover/internal/launch"
)

// builds knows which programs run, and sees whether they are the ones on disk. Its methods
// may be called from any goroutine, except that pin is called before all others.
type builds struct {
	programs []pinned

	mu   sync.Mutex
	own  *image.Build // of this process, once it was read
	disk os.FileInfo  // the file on disk that was compared with it last
	text string       // and what there is to say of it
}

// pinned is the program of a group, as it was when this generation looked it up.
type pinned struct {
	cfg   Config
	group Group
	path  string
	file  os.FileInfo
}

// pin notes the program of a group that has a command.
func (b *builds) pin(c Config, g Group, path string) {
	if len(g.Command) == 0 {
		return
	}
	if file, err := os.Stat(path); err == nil {
		b.programs = append(b.programs, pinned{cfg: c, group: g, path: path, file: file})
	}
}

// running is the build of this process.
func (b *builds) running() image.Build {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.own == nil {
		own, _ := image.Read(launch.Self)   // what can't be read is not said
		if own.Path = ""; goesBack == nil { // else it is a copy without a name
			own.Path, _ = os.Executable()
		}
		b.own = &own
	}
	return *b.own
}

// warnings say, for people, which program on disk is not the one that runs. find looks up
// what an upgrade would start.
func (b *builds) warnings(find func() (string, error)) (list []string) {
	if w := b.warning(find()); w != "" {
		list = append(list, w)
	}
	for _, p := range b.programs {
		if w := p.warning(); w != "" {
			list = append(list, fmt.Sprintf("group %s: %s", p.group.Name, w))
		}
	}
	return list
}

func (b *builds) warning(path string, err error) string {
	own := b.running()
	b.mu.Lock()
	defer b.mu.Unlock()
	var disk os.FileInfo
	var same bool
	if err == nil {
		disk, err = os.Stat(path)
	}
	if err == nil && unchanged(b.disk, disk) {
		return b.text
	}
	b.disk, b.text = disk, ""
	if err == nil {
		same, err = image.Same(launch.Self, path)
	}
	switch {
	case err != nil:
		b.disk = nil
		b.text = fmt.Sprintf("an upgrade would fail, its program can't be read: %v", err)
	case !same:
		there, _ := image.Read(path)
		b.text = fmt.Sprintf("%s is not what runs%s: 'handover upgrade' changes to it", path, between(own, there))
	}
	return b.text
}

// between names two builds, if they have names that differ.
func between(runs, there image.Build) string {
	one, two := runs.String(), there.String()
	if one == two || one == "" || two == "" {
		return ""
	}
	return fmt.Sprintf(" (%s on disk, %s runs)", two, one)
}

// warning says what has changed of a program.
func (p pinned) warning() string {
	now, err := p.cfg.program(p.group)
	if err != nil {
		return fmt.Sprintf("an upgrade would fail: %v", err)
	}
	file, err := os.Stat(now.Path)
	switch {
	case err != nil:
		return fmt.Sprintf("an upgrade would fail: %v", err)
	case now.Path != p.path:
		return fmt.Sprintf("%s is %s now, and %s runs: 'handover upgrade' changes to it", p.group.Command[0], now.Path, p.path)
	case !unchanged(p.file, file):
		return fmt.Sprintf("%s has changed since the workers were started: one that is replaced runs it already, 'handover upgrade' changes all", p.path)
	}
	return ""
}

// unchanged reports whether a file is the one that was seen, and as it was.
func unchanged(seen, now os.FileInfo) bool {
	return seen != nil && os.SameFile(seen, now) && seen.ModTime().Equal(now.ModTime()) && seen.Size() == now.Size()
}
