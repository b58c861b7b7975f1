package protocols_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestSnippets: what docs/protocols.md tells to write is what is tested here, and none of
// the examples is left out.
func TestSnippets(t *testing.T) {
	doc, err := os.ReadFile("../../docs/protocols.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, err := filepath.Glob("example_*_test.go")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	const script = "testdata/news.html"
	text := map[string]string{}
	for _, name := range append(examples, script) {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		text[name] = string(b)
	}
	used := map[string]bool{}
	for _, m := range regexp.MustCompile("(?s)```(\\w*)\n(.*?)```").FindAllStringSubmatch(string(doc), -1) {
		found := false
		for name, src := range text {
			if (m[1] == "js") == (name == script) && strings.Contains(src, "\n"+m[2]) {
				used[name], found = true, true
			}
		}
		if !found {
			t.Errorf("this is nowhere:\n%s", m[2])
		}
	}
	for name := range text {
		if !used[name] {
			t.Errorf("nothing of %s is told", name)
		}
	}
}
