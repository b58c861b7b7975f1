package upgrader

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"github.com/handover-go/handover/internal/program"
)

// Program is the file that an upgrade would start now. Its error is the one that the
// upgrade would fail with, such as fs.ErrNotExist.
func (u *Upgrader) Program() (string, error) { return find(u.cfg.path()) }

// path is what the program is called by.
func (c Config) path() string {
	if c.Path != "" {
		return c.Path
	}
	return os.Args[0]
}

// find looks a program up, from the directory in which the first process was started.
func find(path string) (string, error) {
	if !filepath.IsAbs(path) && strings.ContainsRune(path, '/') {
		path = filepath.Join(startDir, path)
	}
	found, err := exec.LookPath(path)
	if err != nil {
		return path, program.Denied(path, err)
	}
	return found, nil
}
