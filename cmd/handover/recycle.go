//go:build unix

package main

import (
	"fmt"
	"strings"

	"github.com/spf13/pflag"

	"github.com/handover-go/handover/internal/memory"
	"github.com/handover-go/handover/workerset"
)

// recycleOptions are the flags about when workers are replaced that are well.
type recycleOptions struct {
	workerset.Recycle
	memory string
}

func (o *recycleOptions) flags(f *pflag.FlagSet) {
	f.DurationVar(&o.MaxAge, "max-age", 0, "replace workers that are older, one after the other; 0: never")
	f.IntVar(&o.MaxRequests, "max-requests", 0, "replace workers that have served so many requests; not those of a program; 0: never")
	f.StringVar(&o.memory, "max-memory", "none", "replace workers that have more memory, with all that they have started: `[pss:]SIZE`, such as 512M or 1.5G; pss: what they share counts once among all (PSS, else RSS); none: never")
	f.Float64Var(&o.Jitter, "recycle-jitter", workerset.DefaultJitter, "by which part, at most, each worker's own age and requests are less than that, so that not all reach them at the same time")
}

// read makes limits of them.
func (o *recycleOptions) read() (r workerset.Recycle, err error) {
	r = o.Recycle
	if r.Jitter == 0 {
		r.Jitter = -1 // in a Recycle 0 is the default
	} else if r.Jitter < 0 {
		return r, fmt.Errorf("--recycle-jitter %v: must not be negative", r.Jitter)
	}
	if o.memory == "none" {
		return r, nil
	}
	size, pss := strings.CutPrefix(o.memory, "pss:")
	r.PSS = pss
	if r.MaxMemory, err = memory.ParseSize(size); err != nil {
		return r, fmt.Errorf("--max-memory %q: %w", o.memory, err)
	}
	if r.MaxMemory == 0 {
		return r, fmt.Errorf("--max-memory %q: no process needs nothing", o.memory)
	}
	return r, nil
}
