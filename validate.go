package handover

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/control"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/workerset"
)

// ErrConfig is wrapped by every error about a Config.
var ErrConfig = errors.New("bad configuration")

// FieldError says which field of a Config, a Group or a ProgramConfig can't work. Errors
// about a Config that have to do with one wrap it, one for each (errors.Join).
type FieldError = workerset.FieldError

// Validate says which parts of the configuration can't work, before anything has
// been opened or started. The error wraps ErrConfig. See Check, too.
func (c Config) Validate() error {
	_, err := c.withDefaults()
	return err
}

func (c Config) withDefaults() (Config, error) {
	var errs []error
	bad := func(field, format string, args ...any) {
		errs = append(errs, &FieldError{Field: field, Err: fmt.Errorf(format, args...)})
	}
	if c.Name == "" {
		c.Name = filepath.Base(os.Args[0])
	}
	if strings.ContainsAny(c.Name, "/\x00\n") {
		bad("Name", "name %q: must not contain '/' or line ends", c.Name)
	}
	c, err := c.located()
	if err != nil {
		bad("Dir", "working directory: %w", err)
	}
	for _, d := range []struct {
		field, what string
		time.Duration
	}{
		{"LameDuck", "lame duck", c.LameDuck}, {"StopDelay", "stop delay", c.StopDelay}, {"Grace", "grace", c.Grace}, {"UpgradeTimeout", "upgrade timeout", c.UpgradeTimeout},
	} {
		if d.Duration < 0 {
			bad(d.field, "%s %v: must not be negative", d.what, d.Duration)
		}
	}
	if c.MaxConns < 0 {
		bad("MaxConns", "max conns %d: must not be negative, 0 is no limit", c.MaxConns)
	}
	if every := c.TicketRotation; every != 0 && every < time.Second {
		bad("TicketRotation", "ticket rotation %v: must be at least 1s, or 0 for 12h", every)
	}
	errs = append(errs, c.validateHealth()...)
	if len(c.Source) > MaxSource {
		bad("Source", "a source of %d bytes: at most %d are possible", len(c.Source), MaxSource)
	}
	if bytes.IndexByte(c.Source, 0) >= 0 {
		bad("Source", "a source with a zero byte: it has to be a text")
	}
	if err := c.validateStatus(); err != nil {
		bad("StatusListen", "%w", err)
	}
	if c.ControlGroup != "" && c.Control == "" {
		bad("ControlGroup", "control group %q: without a control socket there is nothing to read", c.ControlGroup)
	}
	for typ, h := range c.Handlers {
		if typ == "" || h == nil {
			bad("Handlers", "handler of messages of type %q: it has to have a type, and be there", typ)
		}
	}
	if c.Anchor && c.NoAnchor {
		bad("NoAnchor", "an anchor and no anchor: ask for one of them")
	}
	switch {
	case !c.Single:
	case len(c.Command) > 0:
		bad("Single", "a single process runs the app: a command needs parent and workers")
	case len(c.Groups) > 0:
		bad("Single", "a single process runs one app: groups need parent and workers")
	case c.User != "" || c.Dir != "" || len(c.Env) > 0:
		bad("Single", "a single process is what it was started as: user, working directory and environment are for workers")
	}
	if specs, err := listen.ParseAll(c.Listen); err != nil {
		bad("Listen", "%w", err)
	} else if err := c.validateGroups(specs); err != nil {
		errs = append(errs, err)
	}
	if len(errs) > 0 {
		return c, fmt.Errorf("%w: %w", ErrConfig, errors.Join(errs...))
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	return c, nil
}

// located puts what is relative below the working directory, where there is one.
func (c Config) located() (Config, error) {
	if c.Dir == "" {
		return c, nil
	}
	dir, err := filepath.Abs(c.Dir)
	if err != nil {
		return c, err
	}
	c.Dir = dir
	c.PIDFile = below(dir, c.PIDFile)
	if c.Control != "" && c.Control != control.Auto {
		c.Control = below(dir, c.Control)
	}
	list := make([]string, len(c.Listen))
	for i, s := range c.Listen {
		list[i] = s
		if spec, err := listen.Parse(s); err == nil && spec.Unix() && spec.Addr[0] != '@' {
			spec.Addr = below(dir, spec.Addr)
			list[i] = spec.String()
		}
	}
	c.Listen = list
	return c, nil
}

// below is a path that is relative to dir, unless it is absolute or none.
func below(dir, path string) string {
	if path == "" || dir == "" || filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(dir, path)
}
