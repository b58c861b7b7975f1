package deathtest_test

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table in docs/faults.md anew")

const page = "../../docs/faults.md"

// words are outcomes as people read them.
var words = map[outcome]string{
	oldDecides: "the old one", newDecides: "the new one", another: "another one", goesOn: "the service comes up", ended: "nobody: the service ends",
}

// TestTable compares the page with what TestDeaths and TestStops allow, and with what each row has
// cost when that was measured.
func TestTable(t *testing.T) {
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	costs, err := readCosts()
	if err != nil {
		t.Fatal(err)
	}
	costOf := func(kills bool, s step, v victim) string {
		name := row(kills, s, v)
		c, ok := costs[name]
		if !ok {
			t.Errorf("what %s costs is not measured: DEATHS=all go test ./internal/deathtest -count 5 -costs", name)
		}
		delete(costs, name)
		return c.String()
	}
	want := string(b)
	for what, cell := range map[string]func(step, victim) string{
		"deaths": func(s step, v victim) string {
			var list []string
			for _, o := range s.may[v] {
				list = append(list, words[o])
			}
			return strings.Join(list, ", or ") + ": " + costOf(true, s, v)
		},
		"stops": func(s step, v victim) string {
			if s.alone() {
				return ""
			}
			return costOf(false, s, v)
		},
	} {
		begin, end := "<!-- "+what+": go test ./internal/deathtest -run Table -update -->\n", "<!-- end of "+what+" -->\n"
		before, rest, ok1 := strings.Cut(want, begin)
		_, after, ok2 := strings.Cut(rest, end)
		if !ok1 || !ok2 {
			t.Fatalf("%s has no place for the %s", page, what)
		}
		want = before + begin + tables(cell) + end + after
	}
	for name := range costs {
		t.Errorf("%s is in %s, and there is no such row", name, costsFile)
	}
	if *update {
		if err := os.WriteFile(page, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if want != string(b) {
		t.Errorf("the tables in %s are not what is tested: go test ./internal/deathtest -run Table -update", page)
	}
}

// tables are one for each way, in which a cell tells of a step and of a victim that is there. Rows
// in which nothing is said are left out.
func tables(cell func(step, victim) string) string {
	var b strings.Builder
	var last way
	for _, s := range steps {
		row := "| " + s.name + " "
		said := false
		for _, v := range victims {
			text := ""
			if s.may[v] != nil {
				text = cell(s, v)
			}
			said = said || text != ""
			row += "| " + text + " "
		}
		if !said {
			continue
		}
		if s.way != last {
			fmt.Fprintf(&b, "\n%s\n\n| step | %s |\n|%s\n", headings[s.way], strings.Join(names(), " | "), strings.Repeat("---|", len(victims)+1))
		}
		last = s.way
		b.WriteString(row + "|\n")
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

// TestEveryStep: each step that package fault names has a row.
func TestEveryStep(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "../fault/fault.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	ast.Inspect(f, func(node ast.Node) bool {
		spec, ok := node.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
			n++
			name, err := strconv.Unquote(lit.Value)
			if err != nil || !slices.ContainsFunc(steps, func(s step) bool { return s.name == name }) {
				t.Errorf("%s: no row, %v", lit.Value, err)
			}
		}
		return true
	})
	if n < 30 {
		t.Errorf("only %d steps found", n)
	}
}
