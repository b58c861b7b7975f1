package handover_test

import (
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
)

// TestImports holds the rules of docs/architecture.md: what a package may import
// of this module. One that is not listed here has no place in the architecture.
func TestImports(t *testing.T) {
	const module = "github.com/handover-go/handover"
	rules := map[string]string{
		"internal/lifecycle":    "",
		"internal/cgroup":       "",
		"internal/listen":       "",
		"internal/memory":       "",
		"internal/wire":         "",
		"internal/launch":       "internal/program internal/shortage",
		"internal/image":        "",
		"internal/router":       "internal/wire",
		"message":               "internal/wire",
		"state":                 "internal/clock message",
		"internal/clock":        "",
		"internal/fault":        "",
		"internal/golden":       "",
		"internal/excerpt":      "",
		"internal/sdnotify":     "",
		"signals":               "",
		"tickets":               "internal/clock",
		"certs":                 "",
		"internal/moving":       "internal/fault",
		"internal/home":         "internal/pipe",
		"internal/pipe":         "",
		"internal/threads":      "",
		"internal/snapshot":     "",
		"internal/deathtest":    "",
		"internal/shop":         "draintest/load draintest/procs internal/control internal/demo worker",
		"internal/soaktest":     "",
		"internal/sectest":      "",
		"drain":                 "internal/moving",
		"deploy":                "",
		"draintest":             "draintest/load draintest/procs",
		"draintest/load":        "",
		"draintest/procs":       "",
		"internal/compare":      "drain draintest draintest/load internal/demo signals upgrader",
		"internal/anchor":       "internal/anchor/early internal/clock internal/launch internal/listen internal/pipe internal/sdnotify internal/threads signals",
		"upgrader":              "internal/anchor internal/excerpt internal/fault internal/launch internal/listen internal/moving internal/program internal/sdnotify internal/shortage internal/wire",
		"workerset":             "drain internal/cgroup internal/clock internal/cputime internal/excerpt internal/fault internal/home internal/launch internal/lifecycle internal/listen internal/memory internal/pipe internal/router internal/sdnotify internal/shortage internal/wire message",
		"worker":                "drain internal/fault internal/home internal/listen internal/moving internal/sdnotify internal/threads internal/wire message signals tickets",
		"internal/demo":         "worker",
		"internal/control":      "internal/history internal/image internal/logs workerset",
		"internal/cputime":      "",
		"internal/history":      "",
		"internal/logs":         "",
		"internal/logqueue":     "",
		"internal/console":      "",
		"internal/metrics":      "internal/clock internal/control internal/lifecycle internal/wire workerset",
		"internal/sdtest":       "internal/sdnotify",
		"internal/testca":       "",
		"internal/unit":         "internal/listen",
		"internal/anchor/early": "",
		"internal/program":      "",
		"internal/shortage":     "",
		"internal/faulttest":    "",
		// What the command reads, and TOML, which nobody else is to link; it makes a Config.
		"internal/configfile": "internal/listen internal/memory workerset",
	}
	everything := map[string]bool{"": true, "cmd/handover": true}
	tests := map[string]bool{"internal/sdtest": true, "internal/shop": true, "internal/testca": true} // what only tests import

	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		t.Fatal(err)
	}
	dec := json.NewDecoder(strings.NewReader(string(out)))
	for {
		var p struct {
			ImportPath string
			Imports    []string
		}
		if err := dec.Decode(&p); err == io.EOF {
			break
		} else if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimPrefix(strings.TrimPrefix(p.ImportPath, module), "/")
		for _, imp := range p.Imports {
			if tests[strings.TrimPrefix(imp, module+"/")] {
				t.Errorf("%s imports %s, which is for tests", name, imp)
			}
		}
		if everything[name] {
			continue
		}
		allowed, ok := rules[name]
		if !ok {
			t.Errorf("package %s has no rule", name)
		}
		for _, imp := range p.Imports {
			if strings.Contains(imp, "toml") && name != "internal/configfile" {
				t.Errorf("%s imports %s: only internal/configfile does", name, imp)
			}
			rest, ours := strings.CutPrefix(imp, module+"/")
			if ours && !strings.Contains(" "+allowed+" ", " "+rest+" ") {
				t.Errorf("%s imports %s; it may import: %s", name, rest, allowed)
			}
		}
	}
}

// TestHeavy: what is large is linked only where it is of use. A program that has only
// workers, or one process, has nothing to do with Prometheus.
func TestHeavy(t *testing.T) {
	deps := func(pkgs ...string) (list []string) {
		t.Helper()
		out, err := exec.Command("go", append([]string{"list", "-deps", "-f", "{{.ImportPath}} {{join .Imports \" \"}}"}, pkgs...)...).Output()
		if err != nil {
			t.Fatal(err)
		}
		return strings.Split(strings.TrimSpace(string(out)), "\n")
	}
	const prometheus, metrics = "github.com/prometheus/", "github.com/handover-go/handover/internal/metrics"
	for _, dep := range deps("./worker", "./workerset", "./upgrader", "./drain", "./signals", "./message", "./state", "./draintest") {
		if strings.Contains(dep, prometheus) || strings.HasPrefix(dep, metrics) {
			t.Errorf("too much: %s", dep)
		}
	}
	for _, dep := range deps("./...") {
		path, imports, _ := strings.Cut(dep, " ")
		if strings.HasPrefix(path, "github.com/handover-go/handover") && path != metrics && strings.Contains(imports, prometheus) {
			t.Errorf("%s imports what only %s may: %s", path, metrics, imports)
		}
	}
}

// TestTraps: every test that docs/traps.md names is there.
func TestTraps(t *testing.T) {
	if named := namedTests(t, "docs/traps.md"); named < 30 {
		t.Errorf("%d tests named", named)
	}
}

// TestSecurity: so is every one of docs/security.md.
func TestSecurity(t *testing.T) {
	if named := namedTests(t, "docs/security.md"); named < 80 {
		t.Errorf("%d tests named", named)
	}
}

// TestNodeTable: so is every one of docs/node.md, whose rows say what shows it, or why
// there is nothing to show.
func TestNodeTable(t *testing.T) {
	if named := namedTests(t, "docs/node.md"); named < 100 {
		t.Errorf("%d tests named", named)
	}
	doc, err := os.ReadFile("docs/node.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(doc)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || strings.HasPrefix(line, "|---") || strings.HasSuffix(line, "| test |") {
			continue
		}
		rows++
		cells := strings.Split(strings.Trim(line, "|"), "|")
		if len(cells) != 3 {
			t.Errorf("%d cells: %s", len(cells), line)
			continue
		}
		what, here, shows := strings.TrimSpace(cells[0]), strings.TrimSpace(cells[1]), strings.TrimSpace(cells[2])
		_, reason, _ := strings.Cut(shows, "not wanted: ")
		if named := regexp.MustCompile(`^([a-z/]+ )?Test\w+(, ([a-z/]+ )?Test\w+)*$`).MatchString(shows); what == "" || (here == "") != (reason != "") ||
			!named && reason == "" {
			t.Errorf("it says neither what shows it nor why not: %s", line)
		}
	}
	if rows < 120 {
		t.Errorf("%d rows", rows)
	}
}

// namedTests counts the tests that a table names, each of which has to be there.
func namedTests(t *testing.T, file string) (named int) {
	t.Helper()
	doc, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	// Of which package: the one that was named last in the row.
	words := regexp.MustCompile(`\|\n\|[^|]*\||(?:[a-z/]+ )?Test\w+`).FindAllString(string(doc), -1)
	dir := "."
	for _, w := range words {
		pkg, name, ok := strings.Cut(w, " Test")
		switch {
		case w[0] == '|':
			dir = ""
			continue
		case ok:
			switch dir = pkg; {
			case pkg == "handover":
				dir = "."
			case !isDir(pkg):
				dir = "internal/" + pkg
			}
		default:
			name = strings.TrimPrefix(w, "Test")
		}
		if dir == "" {
			t.Errorf("Test%s: of which package?", name)
			continue
		}
		named++
		out, _ := exec.Command("grep", "-lw", "func Test"+name, "-r", dir, "--include=*_test.go").Output()
		if len(out) == 0 {
			t.Errorf("no Test%s in %s", name, dir)
		}
	}
	return named
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
