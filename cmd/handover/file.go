//go:build unix

package main

import (
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strconv"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/configfile"
	"github.com/handover-go/handover/internal/console"
	"github.com/handover-go/handover/worker"
)

// loadConfig reads a configuration file, as it is now.
func loadConfig(path string) ([]byte, error) {
	if text := handover.KeptSource(); text != nil {
		return text, nil // of the generation that is gone back to
	}
	st, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	// Every process of the service reads it, so that it can't be a pipe.
	if !st.Mode().IsRegular() {
		return nil, fmt.Errorf("configuration file %s: not a regular file", path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("configuration file: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, handover.MaxSource+1))
	switch {
	case err != nil:
		return nil, fmt.Errorf("configuration file: %w", err)
	case len(text) > handover.MaxSource:
		return nil, fmt.Errorf("configuration file %s: larger than %d bytes", path, handover.MaxSource)
	}
	return text, nil
}

// settings are what flags, environment and file say, and the program that was given.
func (f *runFlags) settings(program []string) (*configfile.Result, error) {
	if worker.Inherited() {
		// Of the built-in app: what it needs is in its environment, see tell. The file may say
		// something else by now, or not be readable for this user.
		return configfile.Parse(configfile.Input{Environ: os.Environ()})
	}
	s, err := f.read(program, os.Environ(), loadConfig)
	if err == nil {
		return s, nil
	}
	if last := handover.LastSource(); last != nil {
		s, lastErr := f.read(program, os.Environ(), func(string) ([]byte, error) { return last, nil })
		if lastErr == nil {
			log := newLogger(s.Log)
			log.Error("the configuration can't be used: the service goes on with what it had before its parent died", "error", err)
			return s, nil
		}
	}
	if os.Getenv("HANDOVER_ROLE") == "anchor" {
		// It executes the new program when the new parent has read the file. It has to go on,
		// whatever was done to the file since, and all that it needs has a good default.
		slog.Error("the anchor goes on without the configuration", "error", err)
		return configfile.Parse(configfile.Input{})
	}
	return nil, err
}

func (f *runFlags) read(program, environ []string, load func(path string) ([]byte, error)) (*configfile.Result, error) {
	in := configfile.Input{Environ: environ, Flags: f.values(), Command: program}
	in.Here, _ = os.Getwd() // where it is gone, what is relative to it stays so
	if path := in.Path(); path != "" {
		var err error
		if in.Text, err = load(path); err != nil {
			return nil, err
		}
		in.File, in.Dir = path, filepath.Dir(path)
		if !filepath.IsAbs(path) {
			in.Dir = filepath.Join(in.Here, in.Dir)
		}
	}
	return configfile.Parse(in)
}

// tell lets the workers of the built-in app know what they have to know of the settings.
func tell(s *configfile.Result, cfg *handover.Config) {
	env := func(drain fmt.Stringer) []string {
		list := []string{
			"HANDOVER_NAME=" + cfg.Name, "HANDOVER_LOG=" + s.Log,
			"HANDOVER_DRAIN_TIMEOUT=" + drain.String(), "HANDOVER_LAME_DUCK=" + cfg.LameDuck.String(),
			"HANDOVER_MAX_CONNS=" + strconv.Itoa(cfg.MaxConns),
		}
		if v := os.Getenv(envTerminal); v != "" {
			list = append(list, envTerminal+"="+v)
		}
		return list
	}
	if len(cfg.Groups) == 0 && len(cfg.Command) == 0 && !cfg.Single {
		cfg.Env = append(cfg.Env, env(cfg.DrainTimeout)...)
	}
	for i := range cfg.Groups {
		g := &cfg.Groups[i]
		if len(g.Command)+len(cfg.Command) > 0 {
			continue
		}
		drain := g.DrainTimeout
		if drain == 0 {
			drain = cfg.DrainTimeout
		}
		g.Env = append(g.Env, env(drain)...)
	}
}

// newLogger makes a log of that form.
func newLogger(form string) *slog.Logger {
	if form == "json" {
		return slog.New(slog.NewJSONHandler(os.Stderr, nil))
	}
	return slog.New(textHandler(os.Stderr))
}

// envTerminal is set in a service whose log is shown on a terminal: standard error of what
// an upgrade starts, and of workers, is a pipe that leads there.
const envTerminal = "HANDOVER_TERMINAL"

// findTerminal sets envTerminal where a service begins.
func findTerminal() {
	switch {
	case console.IsTerminal(os.Stderr):
		os.Setenv(envTerminal, "1")
	case os.Getenv("HANDOVER_ROLE") == "" && !worker.Inherited(): // that of a service which has started this one
		os.Unsetenv(envTerminal)
	}
}

// textHandler writes logfmt, or what a person can read, where one looks.
func textHandler(f *os.File) slog.Handler {
	if os.Getenv(envTerminal) != "" {
		return console.NewHandler(f, console.Colours(os.Getenv))
	}
	return slog.NewTextHandler(f, &slog.HandlerOptions{ReplaceAttr: shortTime})
}

// shortTime leaves the date out: whoever keeps the log has its own.
func shortTime(groups []string, a slog.Attr) slog.Attr {
	if len(groups) == 0 && a.Key == slog.TimeKey {
		a.Value = slog.StringValue(a.Value.Time().Format("15:04:05.000"))
	}
	return a
}
