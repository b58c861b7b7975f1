//go:build unix

package main

import (
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/handover-go/handover/internal/configfile"
)

// runFlags are the flags of "handover run": one for each key of the configuration file.
type runFlags struct{ set *pflag.FlagSet }

// add adds them to a command's flags, but for those that the command has of its own.
func (f *runFlags) add(to *pflag.FlagSet) {
	f.set = pflag.NewFlagSet("", pflag.ContinueOnError)
	f.set.SortFlags = false
	for _, k := range configfile.Keys {
		if k.Flag() {
			f.set.AddFlag(&pflag.Flag{
				Name: k.Name, Shorthand: k.Short, Usage: k.Usage,
				Value: &flagValue{typ: k.Type()}, DefValue: shown(k), NoOptDefVal: bare(k),
			})
		}
	}
	to.SortFlags = false
	to.SetInterspersed(false) // what follows the program is the program's
	to.AddFlagSet(f.set)
}

// shown is the default that the help shows: of what is off it shows none.
func shown(k *configfile.Key) string {
	switch k.Default {
	case "0", "0s", "none":
		return ""
	}
	return k.Default
}

// bare is what the flag means without a value.
func bare(k *configfile.Key) string {
	if k.Type() == "bool" {
		return "true"
	}
	return ""
}

// values are those of the flags that were given.
func (f *runFlags) values() map[string][]string {
	values := map[string][]string{}
	f.set.VisitAll(func(fl *pflag.Flag) {
		if v := fl.Value.(*flagValue); v.values != nil {
			values[fl.Name] = v.values
		}
	})
	return values
}

// flagValue is a flag's values, in the order in which they were given. That they are right is
// for configfile to say.
type flagValue struct {
	typ    string
	values []string
}

func (v *flagValue) Set(s string) error {
	if v.typ == "stringArray" {
		v.values = append(v.values, s)
	} else {
		v.values = []string{s}
	}
	return nil
}

func (v *flagValue) String() string { return strings.Join(v.values, " ") }
func (v *flagValue) Type() string   { return v.typ }

// Append, Replace and GetSlice make it a pflag.SliceValue.
func (v *flagValue) Append(s string) error         { return v.Set(s) }
func (v *flagValue) Replace(values []string) error { v.values = slices.Clone(values); return nil }
func (v *flagValue) GetSlice() []string            { return v.values }
