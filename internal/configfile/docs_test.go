//go:build unix

package configfile

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write the table of keys into the documentation")

// TestDocumentation: docs/configuration.md has a row for every key, made of what its flag's
// help says.
func TestDocumentation(t *testing.T) {
	path := filepath.Join("..", "..", "docs", "configuration.md")
	doc, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	const head = "| key | in a file | default | of | |\n|---|---|---|---|---|\n"
	before, rest, ok := bytes.Cut(doc, []byte(head))
	if !ok {
		t.Fatalf("%s has no table that begins with\n%s", path, head)
	}
	end := bytes.Index(rest, []byte("\n\n")) + 1
	table := keyTable()
	if string(rest[:end]) == table {
		return
	}
	if !*update {
		t.Fatalf("%s: the table of keys is not up to date: run this test with -update", path)
	}
	doc = []byte(string(before) + head + table + string(rest[end:]))
	if err := os.WriteFile(path, doc, 0o644); err != nil {
		t.Fatal(err)
	}
}

// TestDocumentedFiles: what the documentation shows as a file is one.
func TestDocumentedFiles(t *testing.T) {
	found := 0
	for _, name := range []string{"README.md", "docs/configuration.md"} {
		doc, err := os.ReadFile(filepath.Join("..", "..", filepath.FromSlash(name)))
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile("(?s)```toml\n(.*?)```").FindAllSubmatch(doc, -1) {
			found++
			again(t, parsed(t, Input{File: name, Text: m[1], Dir: "/etc/shop"}))
		}
	}
	if found < 3 {
		t.Errorf("%d files are shown", found)
	}
}

func keyTable() string {
	var b strings.Builder
	cell := func(s string) string {
		return strings.ReplaceAll(strings.ReplaceAll(strings.ReplaceAll(s, "|", `\|`), "<", "&lt;"), "--", "")
	}
	for _, k := range Keys {
		if k.flagOnly {
			continue
		}
		of := "both"
		switch {
		case k.group == nil:
			of = "service"
		case k.service == nil && !k.inherited:
			of = "group"
		}
		def := k.Default
		if k.Type() == "bool" {
			def = "false"
		}
		if def != "" {
			def = "`" + def + "`"
		}
		flag := ""
		if k.fileOnly {
			flag = " (no flag)"
		}
		fmt.Fprintf(&b, "| `%s`%s | `%s` | %s | %s | %s |\n", k.Name, flag, cell(examples[k.Name].toml), def, of, cell(k.Usage))
	}
	return b.String()
}
