//go:build unix

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/configfile"
	"github.com/handover-go/handover/internal/listen"
	"github.com/handover-go/handover/internal/unit"
)

const unitLong = `Print systemd units for a service: what 'handover run' with the same flags would
run, or a program that links handover (--binary).

The service is sandboxed, runs as a user that systemd makes up, may bind ports below
1024 if it is to, and writes to /run/NAME and /var/lib/NAME. systemctl reload upgrades
it, returns when the upgrade has ended, and fails if that has. With --socket, systemd
binds the sockets, and keeps them while the service is restarted.

What is printed is a start: systemctl edit NAME adds to it.`

// unitOptions are flags of "handover systemd-unit" beside those of "handover run".
type unitOptions struct {
	binary, handover, user, dir, output string
	sockets                             bool
	watchdog                            time.Duration
	own                                 map[string]bool // names of these flags
}

// unitCommand is "handover systemd-unit".
func unitCommand() *cobra.Command {
	var run runFlags
	o := unitOptions{own: map[string]bool{}}
	cmd := &cobra.Command{
		Use:   "systemd-unit [flags] [flags of run] [--] [program args…]",
		Short: "Print systemd units for a service",
		Long:  unitLong,
		Example: `  handover systemd-unit --name shop --listen tcp://:8080 -- /usr/bin/node /srv/shop/server.js
  handover systemd-unit --name shop --listen tcp://:80 --socket --output /etc/systemd/system -- /srv/shop/server
  handover systemd-unit --name shop --listen tcp://:8080 --binary /usr/local/bin/shop`,
		RunE: func(cmd *cobra.Command, args []string) error {
			files, err := o.files(&run, args)
			if err != nil {
				return &exit{2, err}
			}
			if o.output != "" {
				return writeUnits(o.output, files)
			}
			for i, f := range files {
				if i > 0 {
					fmt.Println()
				}
				fmt.Printf("# /etc/systemd/system/%s\n%s", f.Name, f.Text)
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.binary, "binary", "", "`PATH` of a program that links handover and is the service; what stands behind -- are its arguments, and the flags of run say what it does")
	f.StringVar(&o.handover, "handover", "", "`PATH` of handover where the service will run (default: of this program)")
	f.BoolVar(&o.sockets, "socket", false, "units for the sockets, too: systemd binds them")
	f.StringVar(&o.user, "user", "", "`USER` that it runs as, for example root; default: one that systemd makes up")
	f.StringVar(&o.dir, "directory", "", "working `DIRECTORY`")
	f.DurationVar(&o.watchdog, "watchdog", 30*time.Second, "a service that has not served for so long is started again; 0: none")
	f.StringVar(&o.output, "output", "", "write the units into `DIRECTORY`, and replace those that are there")
	f.VisitAll(func(f *pflag.Flag) { o.own[f.Name] = true })
	run.add(f)
	return cmd
}

// files makes the units, or says which flag can't be.
func (o *unitOptions) files(run *runFlags, args []string) ([]unit.File, error) {
	if o.watchdog < 0 {
		return nil, fmt.Errorf("--watchdog %v: must not be negative", o.watchdog)
	}
	program := args
	if o.binary != "" {
		args = append([]string{o.binary}, args...) // for its name, and what may be said of it
	}
	cfg, err := run.read(args, nil, loadConfig) // this environment is not the unit's
	if err != nil {
		return nil, err
	}
	if err := o.fits(cfg); err != nil {
		return nil, err
	}
	if strings.ContainsAny(cfg.Name, " \t%\"'\\") {
		return nil, fmt.Errorf("--name %q: can't be the name of a unit", cfg.Name)
	}
	s := unit.Service{Name: cfg.Name, User: o.user, Dir: o.dir, Sockets: o.sockets, Watchdog: o.watchdog}
	if s.Listen, err = listen.ParseAll(cfg.Listen); err != nil {
		return nil, err
	}
	if o.sockets && len(s.Listen) == 0 {
		return nil, errors.New("--socket: there is no --listen")
	}
	if o.dir != "" && !filepath.IsAbs(o.dir) {
		return nil, fmt.Errorf("--directory %s: must be an absolute path", o.dir)
	}
	if o.handover == "" {
		if o.handover, err = os.Executable(); err != nil {
			return nil, err
		}
	} else if !filepath.IsAbs(o.handover) {
		return nil, fmt.Errorf("--handover %s: must be an absolute path", o.handover)
	}
	if program, err = o.absolute(program); err != nil {
		return nil, err
	}
	switch {
	case o.binary != "" && !filepath.IsAbs(o.binary):
		return nil, fmt.Errorf("--binary %s: must be an absolute path", o.binary)
	case o.binary != "":
		s.Start = append([]string{o.binary}, program...)
		s.Reads = []string{o.binary, o.handover}
	default:
		s.Start = append([]string{o.handover, "run"}, o.runFlags(run, cfg.Name)...)
		s.Reads = []string{o.handover}
		if len(program) > 0 {
			s.Start = append(append(s.Start, "--"), program...)
			s.Reads = append(s.Reads, program...)
		}
	}
	s.Reads = append(s.Reads, reads(cfg)...)
	for _, path := range append(s.Reads, o.dir) {
		if strings.HasPrefix(path, "/tmp/") || strings.HasPrefix(path, "/var/tmp/") {
			fmt.Fprintf(os.Stderr, "handover: warning: %s will not be there: the service has a /tmp and a /var/tmp of its own (PrivateTmp=); put it elsewhere\n", path)
		}
	}
	s.Reload = []string{o.handover, "upgrade", "--wait", "serve", "--name", cfg.Name}
	if cfg.Control != "auto" && cfg.Control != "" {
		s.Reload = []string{o.handover, "upgrade", "--wait", "serve", "--control", cfg.Control}
		s.Writes = append(s.Writes, filepath.Dir(cfg.Control))
	}
	for _, l := range s.Listen {
		if dir := filepath.Dir(l.Addr); strings.HasPrefix(l.Network, "unix") && strings.HasPrefix(l.Addr, "/") && !o.sockets && dir != "/run/"+s.Name {
			s.Writes = append(s.Writes, dir)
		}
	}
	s.Sweep = []string{o.handover, "sweep"}
	// The service asks for more when it needs that.
	s.StartTime = cfg.StartTimeout + 30*time.Second
	s.StopTime = cfg.StopDelay + cfg.DrainTimeout + 10*time.Second
	return s.Files(), nil
}

// fits says what of the settings can't be in a unit.
func (o *unitOptions) fits(cfg *configfile.Result) error {
	other := cfg.User != "" || slices.ContainsFunc(cfg.Groups, func(g handover.Group) bool { return g.User != "" })
	switch {
	case cfg.PIDFile != "" || cfg.Single || cfg.NoAnchor:
		return errors.New("--pid-file, --single and --no-anchor: systemd knows the pid, and the service's units are for a parent and workers")
	case cfg.File != "" && !filepath.IsAbs(cfg.File):
		return fmt.Errorf("--file %s: must be an absolute path", cfg.File)
	case other && o.user == "":
		return errors.New("workers that run as somebody else can be started by root only: --user root")
	}
	return nil
}

// reads are the paths that a file names, and its own.
func reads(cfg *configfile.Result) (paths []string) {
	if cfg.File == "" {
		return nil
	}
	paths = []string{cfg.File, cfg.Dir}
	for _, g := range append(cfg.Groups, handover.Group{Command: cfg.Command}) {
		for _, path := range append(g.Command, g.Dir) {
			if filepath.IsAbs(path) {
				paths = append(paths, path)
			}
		}
	}
	return paths
}

// runFlags are what was given of the flags of run.
func (o *unitOptions) runFlags(run *runFlags, name string) []string {
	list := []string{"--name", name}
	run.set.VisitAll(func(f *pflag.Flag) {
		v := f.Value.(*flagValue)
		for _, value := range v.values {
			switch {
			case f.Name == "name" || o.own[f.Name]:
			case v.Type() == "bool":
				list = append(list, "--"+f.Name+"="+value)
			default:
				list = append(list, "--"+f.Name, value)
			}
		}
	})
	return list
}

// absolute makes a program independent of where this one runs.
func (o *unitOptions) absolute(program []string) ([]string, error) {
	if len(program) == 0 || o.binary != "" {
		return program, nil
	}
	list := append([]string{}, program...)
	if !filepath.IsAbs(list[0]) {
		path, err := exec.LookPath(list[0])
		if err == nil {
			path, err = filepath.Abs(path)
		}
		if err != nil {
			return nil, fmt.Errorf("program %q: %w: give its absolute path", list[0], err)
		}
		list[0] = path
	}
	for _, arg := range list[1:] {
		if o.dir == "" && !filepath.IsAbs(arg) {
			if st, err := os.Stat(arg); err == nil && st.Mode().IsRegular() {
				return nil, fmt.Errorf("%q is a file here, but the service does not run here: give its absolute path, or --directory", arg)
			}
		}
	}
	return list, nil
}

// writeUnits puts the units in place.
func writeUnits(dir string, files []unit.File) error {
	for _, f := range files {
		path := filepath.Join(dir, f.Name)
		err := os.WriteFile(path+".new", []byte(f.Text), fs.FileMode(0o644))
		if err == nil {
			err = os.Rename(path+".new", path)
		}
		if err != nil {
			return &exit{1, fmt.Errorf("unit not written: %w", err)}
		}
		fmt.Println(path)
	}
	return nil
}
