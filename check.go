package handover

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/program"
)

// Check is Validate, and looks whether what the configuration names is there: working
// directories, programs that can be executed, and the directories of files and sockets. It
// opens, starts and changes nothing.
func (c Config) Check() error {
	c, err := c.withDefaults()
	if err != nil {
		return err
	}
	errs := c.checkPlaces()
	for _, g := range c.groups(1) {
		p, err := c.program(g)
		if err == nil && p.Path != "" {
			err = program.Check(p.Path)
			if err != nil {
				err = c.fieldError(g, "Command", "program %w", err)
			}
		}
		errs = append(errs, err)
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("%w: %w", ErrConfig, err)
	}
	return nil
}

// checkPlaces looks for the directories of what the parent makes.
func (c Config) checkPlaces() (errs []error) {
	in := func(field, what, path string) {
		dir := filepath.Dir(path)
		st, err := os.Stat(dir)
		if err == nil && !st.IsDir() {
			err = &os.PathError{Op: "stat", Path: dir, Err: syscall.ENOTDIR}
		}
		if err != nil {
			errs = append(errs, &FieldError{Field: field, Err: fmt.Errorf("directory of %s %s: %w", what, path, err)})
		}
	}
	if c.PIDFile != "" {
		in("PIDFile", "the PID file", c.PIDFile)
	}
	if c.Control != "" && c.Control != control.Auto {
		in("Control", "the control socket", c.Control)
	}
	specs, _ := listen.ParseAll(c.Listen) // they are valid
	for _, s := range specs {
		if s.Unix() && !strings.HasPrefix(s.Addr, "@") {
			in("Listen", "the socket", s.Addr)
		}
	}
	return errs
}
