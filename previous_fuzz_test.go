package handover

import (
	"encoding/json"
	"strings"
	"testing"
)

// FuzzBack: what a new parent is told of the generation that it is to be is read, or is an error
// that names the variable.
func FuzzBack(f *testing.F) {
	for _, v := range []string{
		`{"failed":3,"reason":"web/1: no luck","recipe":{"generation":2,"source":"YQ==","programs":{"web":{"path":"/p","name":"n","dir":"/"}}}}`,
		`{"recipe":{"source":null}}`, `{"recipe":{"source":""}}`, `{"recipe":{"source":"%"}}`, "", "null", "[]", `{"failed":-1}`,
	} {
		f.Add(v)
	}
	f.Fuzz(func(t *testing.T, v string) {
		b, err := parseBack(&v)
		if err != nil {
			if b != nil || !strings.HasPrefix(err.Error(), envBack+"=") {
				t.Errorf("%+v, %v", b, err)
			}
			return
		}
		text, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		v = string(text)
		again, err := parseBack(&v)
		if err != nil {
			t.Fatal(err)
		}
		if next, err := json.Marshal(again); err != nil || string(next) != v {
			t.Errorf("%+v is %s, and that is %s, %v", b, text, next, err)
		}
	})
}
