package wire

import (
	"go/ast"
	"go/parser"
	"go/token"
	"strconv"
	"testing"
)

// TestCauses: the list has all that there are.
func TestCauses(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "commands.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[Cause]bool{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		if typ, ok := spec.Type.(*ast.Ident); ok && typ.Name == "Cause" {
			s, _ := strconv.Unquote(spec.Values[0].(*ast.BasicLit).Value)
			want[Cause(s)] = true
		}
		return true
	})
	for _, c := range Causes {
		if !want[c] {
			t.Errorf("there is no cause %q, or it is there twice", c)
		}
		delete(want, c)
	}
	if len(want) > 0 {
		t.Errorf("not in the list: %v", want)
	}
}
