//go:build unix

package main

import (
	"reflect"
	"slices"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/internal/configfile"
)

// TestFlags: all that can be said to "handover run" by a flag can be said in a file, and the
// other way round; check takes the same, and systemd-unit all that it has no other meaning for.
func TestFlags(t *testing.T) {
	run := runCommand().Flags()
	keys := map[string]bool{}
	for _, k := range configfile.Keys {
		keys[k.Name] = true
		for _, cmd := range []*cobra.Command{runCommand(), checkCommand(), unitCommand()} {
			if f := cmd.Flags().Lookup(k.Name); (f != nil) != k.Flag() {
				t.Errorf("%s --%s: is there %t, and is to be %t", cmd.Name(), k.Name, f != nil, k.Flag())
			}
		}
	}
	run.VisitAll(func(f *pflag.Flag) {
		if !keys[f.Name] {
			t.Errorf("--%s is no key of the configuration file: make it a line of configfile.Keys", f.Name)
		}
	})
}

// TestFlagValues: what was given, in order, and nothing of what was not.
func TestFlagValues(t *testing.T) {
	var f runFlags
	cmd := &cobra.Command{}
	f.add(cmd.Flags())
	args := []string{"--listen", "a=tcp://:1", "--listen=b=tcp://:2,3", "--workers", "1", "--workers", "2", "--anchor", "--no-anchor=false", "-f", "x", "program", "--surge"}
	if err := cmd.Flags().Parse(args); err != nil {
		t.Fatal(err)
	}
	want := map[string][]string{"listen": {"a=tcp://:1", "b=tcp://:2,3"}, "workers": {"2"}, "anchor": {"true"}, "no-anchor": {"false"}, "file": {"x"}}
	if got := f.values(); !reflect.DeepEqual(got, want) {
		t.Errorf("%v, not %v", got, want)
	}
	if got := cmd.Flags().Args(); !slices.Equal(got, []string{"program", "--surge"}) {
		t.Errorf("arguments %q", got)
	}
}

// TestTell: workers of the built-in app know what they need without the file, programs are
// told nothing.
func TestTell(t *testing.T) {
	told := func(drain string) []string {
		return []string{"HANDOVER_NAME=shop", "HANDOVER_LOG=json", "HANDOVER_DRAIN_TIMEOUT=" + drain, "HANDOVER_LAME_DUCK=2s", "HANDOVER_MAX_CONNS=9"}
	}
	settings := func(cfg handover.Config) *configfile.Result {
		cfg.Name, cfg.DrainTimeout, cfg.LameDuck, cfg.MaxConns = "shop", 3*time.Second, 2*time.Second, 9
		return &configfile.Result{Settings: configfile.Settings{Config: cfg, Log: "json"}}
	}
	s := settings(handover.Config{Env: []string{"A=b"}})
	cfg := s.Config
	tell(s, &cfg)
	if want := append([]string{"A=b"}, told("3s")...); !slices.Equal(cfg.Env, want) {
		t.Errorf("%q, not %q", cfg.Env, want)
	}
	for _, c := range []handover.Config{{Single: true}, {Command: []string{"x"}}} {
		s := settings(c)
		cfg := s.Config
		if tell(s, &cfg); len(cfg.Env) > 0 {
			t.Errorf("%+v is told %q", c, cfg.Env)
		}
	}
	s = settings(handover.Config{Groups: []handover.Group{{Name: "a"}, {Name: "b", DrainTimeout: time.Second}, {Name: "c", Command: []string{"x"}}}})
	cfg = s.Config
	tell(s, &cfg)
	for i, want := range [][]string{told("3s"), told("1s"), nil} {
		if !slices.Equal(cfg.Groups[i].Env, want) {
			t.Errorf("group %s: %q, not %q", cfg.Groups[i].Name, cfg.Groups[i].Env, want)
		}
	}
	in := configfile.Input{Environ: append(told("1s"), "HANDOVER_WORKER=b/1/1/1")}
	if r, err := configfile.Parse(in); err != nil || r.Name != "shop" || r.Log != "json" || r.DrainTimeout != time.Second || r.LameDuck != 2*time.Second || r.MaxConns != 9 {
		t.Errorf("the worker understands %+v, %v", r, err)
	}
}
