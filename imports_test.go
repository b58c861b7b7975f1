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
		"internal/lifecycle": "",
		"internal/listen":    "",
		"internal/wire":      "",
		"internal/launch":    "",
		"internal/router":    "internal/wire",
		"message":            "internal/wire",
		"state":              "message",
		"internal/fault":     "",
		"internal/golden":    "",
		"internal/sdnotify":  "",
		"signals":            "",
		"internal/moving":    "",
		"drain":              "internal/moving",
		"draintest":          "draintest/load draintest/procs",
		"draintest/load":     "",
		"draintest/procs":    "",
		"internal/anchor":    "internal/launch internal/listen internal/sdnotify signals",
		"upgrader":           "internal/fault internal/launch internal/listen internal/moving internal/sdnotify internal/wire",
		"workerset":          "drain internal/launch internal/lifecycle internal/router internal/sdnotify internal/wire message",
		"worker":             "drain internal/listen internal/moving internal/wire message signals",
		"internal/demo":      "worker",
		"internal/control":   "workerset",
	}
	everything := map[string]bool{"": true, "cmd/handover": true}

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
		if everything[name] {
			continue
		}
		allowed, ok := rules[name]
		if !ok {
			t.Errorf("package %s has no rule", name)
		}
		for _, imp := range p.Imports {
			rest, ours := strings.CutPrefix(imp, module+"/")
			if ours && !strings.Contains(" "+allowed+" ", " "+rest+" ") {
				t.Errorf("%s imports %s; it may import: %s", name, rest, allowed)
			}
		}
	}
}

// TestTraps: every test that docs/traps.md names is there.
func TestTraps(t *testing.T) {
	doc, err := os.ReadFile("docs/traps.md")
	if err != nil {
		t.Fatal(err)
	}
	// Of which package: the one that was named last in the row.
	words := regexp.MustCompile(`\|\n\|[^|]*\||(?:[a-z/]+ )?Test\w+`).FindAllString(string(doc), -1)
	dir, named := ".", 0
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
	if named < 30 {
		t.Errorf("%d tests named", named)
	}
}

func isDir(name string) bool {
	st, err := os.Stat(name)
	return err == nil && st.IsDir()
}
