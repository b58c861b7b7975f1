//go:build unix

package configfile

import (
	"bytes"
	"fmt"
	"reflect"

	"github.com/pelletier/go-toml/v2"
)

// TOML is a file that says all of the settings, the defaults, too.
func (s *Settings) TOML() []byte {
	var b bytes.Buffer
	section(&b, "", func(k *Key) any {
		if k.service == nil || k.flagOnly || k.program && !s.HasProgram() {
			return nil
		}
		return kindOf(k.service(s)).get(k.service(s))
	})
	for i := range s.Groups {
		g := &s.Groups[i]
		fmt.Fprintf(&b, "\n[%s.%s]\n", keyGroups, quotedKey(g.Name))
		section(&b, keyGroups+"."+quotedKey(g.Name)+".", func(k *Key) any {
			if k.group == nil {
				return nil
			}
			p := k.group(g)
			kind := kindOf(p)
			switch v := reflect.ValueOf(p).Elem(); {
			case k.program && len(g.Command) == 0:
				return nil
			case k.program && reflect.DeepEqual(kind.get(p), kind.get(k.service(s))):
				return nil
			case !k.program && v.IsZero():
				return nil // it is as the service has it
			}
			return kind.get(p)
		})
	}
	return b.Bytes()
}

// section prints a table: what is itself a table comes last.
func section(b *bytes.Buffer, prefix string, value func(*Key) any) {
	for _, k := range Keys {
		if v := value(k); v != nil && !isTable(v) {
			print(b, map[string]any{k.Name: v})
		}
	}
	for _, k := range Keys {
		if v := value(k); isTable(v) {
			fmt.Fprintf(b, "\n[%s%s]\n", prefix, k.Name)
			print(b, v)
		}
	}
}

func isTable(v any) bool {
	_, ok := v.(map[string]any)
	return ok
}

func print(b *bytes.Buffer, v any) {
	text, err := toml.Marshal(v)
	if err != nil {
		panic(err) // strings, numbers and arrays of strings are what TOML has
	}
	b.Write(text)
}

// quotedKey is a name as it may stand in the path of a table.
func quotedKey(name string) string {
	var b bytes.Buffer
	print(&b, map[string]any{name: true})
	return string(bytes.TrimSuffix(b.Bytes(), []byte(" = true\n")))
}
