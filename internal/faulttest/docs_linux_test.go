package faulttest_test

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/handover-go/handover/internal/golden"
)

// TestDocs: docs/faults.md has the rows. -update writes its part between the marks.
func TestDocs(t *testing.T) {
	const (
		file  = "../../docs/faults.md"
		begin = "<!-- the machine: go test ./internal/faulttest -run TestDocs -update -->\n"
		end   = "<!-- the machine ends -->\n"
	)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), begin)
	table, after, ended := strings.Cut(rest, end)
	if !ok || !ended {
		t.Fatalf("%s has no part between %q and %q", file, begin, end)
	}
	var want strings.Builder
	want.WriteString("\n| fault | what is said | what it costs | row |\n|---|---|---|---|\n")
	for _, r := range rows {
		if r.fault == "" || r.costs == "" {
			t.Errorf("%s does not say all", r.name)
		}
		var said []string
		for _, y := range r.says {
			said = append(said, y.where+": `"+strings.ReplaceAll(y.text, "|", `\|`)+"`")
		}
		fmt.Fprintf(&want, "| %s | %s | %s | %s |\n", r.fault, strings.Join(said, "<br>"), r.costs, r.name)
	}
	want.WriteString("\n")
	if table == want.String() {
		return
	}
	if !golden.Update() {
		t.Fatalf("%s has other rows: run this test with -update", file)
	}
	if err := os.WriteFile(file, []byte(before+begin+want.String()+end+after), 0o644); err != nil {
		t.Fatal(err)
	}
}
