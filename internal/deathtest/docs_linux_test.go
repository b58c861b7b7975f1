package deathtest_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table in docs/faults.md anew")

const (
	page  = "../../docs/faults.md"
	begin = "<!-- deaths: go test ./internal/deathtest -run Table -update -->\n"
	end   = "<!-- end of deaths -->\n"
)

// words are outcomes as people read them.
var words = map[outcome]string{
	oldDecides: "the old one", newDecides: "the new one", another: "another one", goesOn: "the service comes up", ended: "nobody: the service ends",
}

// TestTable compares the page with what TestDeaths allows.
func TestTable(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok1 := strings.Cut(string(b), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok1 || !ok2 {
		t.Fatalf("%s has no place for the table", page)
	}
	want := before + begin + table() + end + after
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(b) {
		t.Errorf("the table in %s is not what is tested: go test ./internal/deathtest -run Table -update", page)
	}
}

func table() string {
	var b strings.Builder
	var last way
	for _, s := range steps {
		if s.way != last {
			fmt.Fprintf(&b, "\n%s\n\n| step | %s |\n|%s\n", headings[s.way], strings.Join(names(), " | "), strings.Repeat("---|", len(victims)+1))
		}
		last = s.way
		fmt.Fprintf(&b, "| %s ", s.name)
		for _, v := range victims {
			var cell []string
			for _, o := range s.may[v] {
				cell = append(cell, words[o])
			}
			fmt.Fprintf(&b, "| %s ", strings.Join(cell, ", or "))
		}
		b.WriteString("|\n")
	}
	b.WriteString("\n")
	return b.String()
}

var headings = map[way]string{
	upgrades: "In an upgrade, in the roll that follows, while workers drain and connections move:",
	starts:   "While the service starts (what the new parent is here is its first one):",
	stops:    "While it stops, after a TERM:",
	resumes:  "While another parent comes up in place of one that was killed (which is meant by the old parent here):",
}

func names() (list []string) {
	for _, v := range victims {
		list = append(list, string(v))
	}
	return list
}
