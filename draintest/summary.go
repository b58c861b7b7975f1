package draintest

import (
	"fmt"
	"strings"
	"text/tabwriter"
	"time"
)

// String returns the report as a person reads it: the verdict with its reasons, then the
// rounds and the clients.
func (r *Report) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s, %s of %d by %s\n", strings.ToUpper(r.Verdict().String()), r.Name,
		plural(len(r.Rounds), "round"), r.Asked, r.Action)
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "  - %s\n", f.Text)
		if f.Cause != "" {
			fmt.Fprintf(&b, "    usual cause: %s\n", f.Cause)
		}
	}
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "round\taction\tnew process\told gone\tfailed\tclosed idle\tprocesses\tdescriptors\t")
	for _, x := range r.Rounds {
		fmt.Fprintf(w, "%d\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t\n", x.N, ms(x.Action), ms(x.Changed), ms(x.Settled),
			x.Failed, x.Idle, number(x.Processes), number(x.FDs))
	}
	w.Flush()
	if r.P99In > 0 && r.P99Out > 0 {
		fmt.Fprintf(&b, "99 of 100 new requests were answered within %s in a restart, and within %s otherwise\n", ms10(r.P99In), ms10(r.P99Out))
	}
	if r.Memory > 0 {
		fmt.Fprintf(&b, "memory at the peak: %d MB\n", r.Memory>>20)
	}
	b.WriteString(r.Load.String())
	return strings.TrimRight(b.String(), "\n")
}

// ms is a time that may not have come.
func ms(d time.Duration) string {
	if d == 0 {
		return "-"
	}
	return d.Round(time.Millisecond).String()
}

// ms10 is a time in milliseconds to a tenth.
func ms10(d time.Duration) string { return d.Round(100 * time.Microsecond).String() }

// number is one that may not be known.
func number(n int) string {
	if n == 0 {
		return "-"
	}
	return fmt.Sprint(n)
}
