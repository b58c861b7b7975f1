package upgrader

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// writePIDFile replaces path by a file that holds this process's pid. A reader
// sees the old content or the new, never a part: the file is written beside it
// and renamed (rename(2)).
func writePIDFile(path string) error {
	tmp, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return fmt.Errorf("PID file: %w", err)
	}
	defer os.Remove(tmp.Name()) // fails after the rename, as it should
	_, err = tmp.WriteString(strconv.Itoa(os.Getpid()) + "\n")
	if err == nil {
		err = tmp.Chmod(0o644)
	}
	if cerr := tmp.Close(); err == nil {
		err = cerr
	}
	if err == nil {
		err = os.Rename(tmp.Name(), path)
	}
	if err != nil {
		return fmt.Errorf("PID file %s: %w", path, err)
	}
	return nil
}

// removePIDFile removes the file if it still names this process.
func removePIDFile(path string) {
	b, err := os.ReadFile(path)
	if err == nil && strings.TrimSpace(string(b)) == strconv.Itoa(os.Getpid()) {
		os.Remove(path)
	}
}

// checkPIDFile finds out early what would fail late.
func checkPIDFile(path string) error {
	dir := filepath.Dir(path)
	switch st, err := os.Stat(dir); {
	case err != nil:
		return fmt.Errorf("PID file %s: %w", path, err)
	case !st.IsDir():
		return fmt.Errorf("PID file %s: %s is not a directory", path, dir)
	}
	if st, err := os.Stat(path); err == nil && !st.Mode().IsRegular() {
		return fmt.Errorf("PID file %s: exists and is no regular file", path)
	}
	return nil
}
