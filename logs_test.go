package handover_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// record is what a call of a logger's method says.
type record struct {
	at             token.Position
	level, message string
	keys           []string
}

// logged are all records in the module's source, and keys all attributes that loggers have
// of their own.
func logged(t *testing.T) (records []record, keys []string) {
	t.Helper()
	fset := token.NewFileSet()
	err := filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.IsDir() && (d.Name() == "testdata" || d.Name() == ".git"):
			return fs.SkipDir
		case !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go"):
			return nil
		}
		f, err := parser.ParseFile(fset, path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			level, args := logCall(call)
			switch {
			case level == "With":
				keys = append(keys, keysOf(t, fset, args)...)
			case level != "":
				r := record{at: fset.Position(call.Pos()), level: level, message: literal(t, fset, args[0]), keys: keysOf(t, fset, args[1:])}
				records = append(records, r)
			}
			return true
		})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return records, keys
}

// logCall is the level of a call that logs, or With, and its arguments from the message on.
func logCall(call *ast.CallExpr) (level string, args []ast.Expr) {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || len(call.Args) == 0 {
		return "", nil
	}
	of := ""
	switch x := sel.X.(type) {
	case *ast.Ident:
		of = x.Name
	case *ast.SelectorExpr:
		of = x.Sel.Name
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.SelectorExpr); ok {
			of = f.Sel.Name
		}
	}
	if !strings.HasPrefix(strings.ToLower(of), "log") && of != "slog" {
		return "", nil
	}
	switch sel.Sel.Name {
	case "Debug", "Info", "Warn", "Error":
		return strings.ToUpper(sel.Sel.Name), call.Args
	case "Log": // of a level that is known at run time
		return "INFO, ERROR", call.Args[2:]
	case "With":
		return "With", call.Args
	}
	return "", nil
}

func literal(t *testing.T, fset *token.FileSet, e ast.Expr) string {
	t.Helper()
	lit, ok := e.(*ast.BasicLit)
	if !ok {
		t.Errorf("%s: not a literal", fset.Position(e.Pos()))
		return ""
	}
	s, _ := strconv.Unquote(lit.Value)
	return s
}

func keysOf(t *testing.T, fset *token.FileSet, args []ast.Expr) (keys []string) {
	t.Helper()
	for i := 0; i < len(args); i += 2 {
		key := literal(t, fset, args[i])
		if !regexp.MustCompile(`^[a-z]+(_[a-z]+)*$`).MatchString(key) {
			t.Errorf("%s: key %q", fset.Position(args[i].Pos()), key)
		}
		keys = append(keys, key)
	}
	return keys
}

// TestLogs: docs/logs.md lists each event that there is, with its level and attributes, and
// no other.
func TestLogs(t *testing.T) {
	doc, err := os.ReadFile("docs/logs.md")
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		keys []string
		used bool
	}
	rows := map[string]*row{} // by level and message
	for _, m := range regexp.MustCompile(`(?m)^\| ([A-Z, ]+) \| (.+) \| ([a-z_, ]*) ?\|$`).FindAllStringSubmatch(string(doc), -1) {
		key := m[1] + " " + m[2]
		if rows[key] == nil {
			rows[key] = &row{}
		}
		if m[3] = strings.TrimSpace(m[3]); m[3] != "" {
			rows[key].keys = append(rows[key].keys, strings.Split(m[3], ", ")...)
		}
	}
	records, keys := logged(t)
	if len(records) < 100 {
		t.Errorf("%d records found", len(records))
	}
	for _, r := range records {
		found := rows[r.level+" "+r.message]
		if found == nil {
			t.Errorf("%s: docs/logs.md has no row\n%s", r.at, fmt.Sprintf("| %s | %s | %s |", r.level, r.message, strings.Join(r.keys, ", ")))
			continue
		}
		found.used = true
		for _, key := range r.keys {
			if !slices.Contains(found.keys, key) {
				t.Errorf("%s: docs/logs.md has no attribute %s of %q", r.at, key, r.message)
			}
			keys = append(keys, key)
		}
	}
	for what, r := range rows {
		if !r.used {
			t.Errorf("docs/logs.md has what is not logged: %s", what)
		}
		for _, key := range r.keys {
			if !slices.Contains(keys, key) {
				t.Errorf("docs/logs.md has an attribute that there is not: %s of %s", key, what)
			}
		}
	}
}

// TestLogRecords: each record says whose it is, and nothing twice.
func TestLogRecords(t *testing.T) {
	records, _ := logged(t)
	dirs := map[string][]string{} // by message
	for _, r := range records {
		dirs[r.message] = append(dirs[r.message], filepath.Dir(r.at.Filename))
	}
	s := startService(t, 2, noProbation)
	s.killWorker()
	s.upgrade()
	from := s.mark()
	if _, _, err := askAt(s.addr).ask("GET", "/fail", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := s.waitFrom(from, has(`msg="worker exited"`)); err != nil {
		t.Fatal(err)
	}
	s.stop()
	seen := map[string]int{}
	for line := range strings.Lines(s.tail(10_000)) {
		message := match(line, ` msg=(\w+|"(?:[^"\\]|\\.)*")`)
		if text, err := strconv.Unquote(message); err == nil {
			message = text
		}
		from := dirs[message]
		if len(from) != 1 {
			continue // the test's own, or of several packages
		}
		want := map[string][]string{
			".": {"service", "generation"}, "upgrader": {"service", "generation"}, "signals": {"service", "generation"},
			"workerset": {"service", "generation"}, "internal/anchor": {"service"},
			"worker": {"worker", "id", "pid", "generation"}, "drain": {"worker", "id", "pid", "generation", "addr"},
		}[from[0]]
		if from[0] == "workerset" && strings.HasPrefix(message, "worker ") {
			want = append(want, "worker", "id", "pid", "worker_generation")
		}
		for _, key := range want {
			if n := strings.Count(line, " "+key+"="); n != 1 {
				t.Errorf("%d times %s in %s", n, key, line)
			}
		}
		seen[from[0]]++
	}
	if seen["."] < 3 || seen["workerset"] < 6 || seen["drain"] < 4 || seen["worker"] < 1 {
		t.Errorf("lines seen by package: %v", seen)
	}
}
