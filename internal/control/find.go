package control

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// run is where systemd makes the directories of services (RuntimeDirectory=). Whoever
// asks from outside has no $RUNTIME_DIRECTORY that says so; handover systemd-unit has them
// named after the service.
var run = "/run"

// Locate is where the socket of the service of that name is, for whoever asks it.
func Locate(name string) string {
	path := Path(Auto, name)
	if _, err := os.Lstat(path); errors.Is(err, fs.ErrNotExist) {
		if own := filepath.Join(run, name, name+".sock"); isSocket(own) {
			return own
		}
	}
	return path
}

func isSocket(path string) bool {
	st, err := os.Lstat(path)
	return err == nil && st.Mode()&fs.ModeSocket != 0
}

// Find is the socket of the only service that has one, for a person who has not
// said which is meant.
func Find() (string, error) {
	d, _ := dir()
	found, _ := filepath.Glob(filepath.Join(d, "*.sock"))
	var live []string
	for _, f := range found {
		if c, err := dial(f); err == nil {
			c.Close()
			live = append(live, f)
		}
	}
	// Other services have sockets of such names, too.
	others, _ := filepath.Glob(filepath.Join(run, "*", "*.sock"))
	for _, f := range others {
		if name := filepath.Base(filepath.Dir(f)); filepath.Base(f) == name+".sock" && !slices.Contains(live, f) && isSocket(f) && isOurs(f, name) {
			live = append(live, f)
		}
	}
	switch len(live) {
	case 1:
		return live[0], nil
	case 0:
		return "", fmt.Errorf("no service with a control socket runs (looked in %s and in %s/NAME): say which with --name or --control", d, run)
	}
	var names []string
	for _, f := range live {
		names = append(names, strings.TrimSuffix(filepath.Base(f), ".sock"))
	}
	return "", fmt.Errorf("%d services run: say which with --name, one of %s", len(live), strings.Join(names, ", "))
}

// isOurs reports whether a service of that name answers.
func isOurs(path, name string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	st, _, err := NewClient(path).Status(ctx)
	return err == nil && st.Service == name
}
