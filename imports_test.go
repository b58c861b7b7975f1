package handover_test

import (
	"encoding/json"
	"io"
	"os/exec"
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
		"internal/fault":     "",
		"internal/golden":    "",
		"internal/sdnotify":  "",
		"signals":            "",
		"drain":              "",
		"draintest":          "",
		"internal/anchor":    "internal/launch internal/listen internal/sdnotify signals",
		"upgrader":           "internal/fault internal/launch internal/listen internal/sdnotify internal/wire",
		"workerset":          "drain internal/launch internal/lifecycle internal/sdnotify internal/wire",
		"worker":             "drain internal/listen internal/wire signals",
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
