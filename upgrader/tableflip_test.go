//go:build linux

package upgrader

import (
	"errors"
	"fmt"
	"io"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/cloudflare/tableflip"
)

// The start function can be replaced in the tableflip that go.mod names, and in
// none of another shape.
func TestInjectSpawner(t *testing.T) {
	t.Parallel()
	type good func(string, []string, []*os.File, []string) (process, error)
	type env[F any] struct{ newProc F }
	type upgrader[E any] struct{ env E }
	start := func(p process, err error) spawner {
		return func(files []*os.File, env []string) (process, error) {
			if len(files) != 1 || len(env) != 2 {
				t.Errorf("%d files, %d variables", len(files), len(env))
			}
			return p, err
		}
	}
	enough, proc := errors.New("enough"), tableflipProcess{}
	for _, c := range []struct {
		p    process
		err  error
		want string
	}{{proc, nil, ""}, {nil, enough, "enough"}, {nil, nil, "no process"}} {
		up := &upgrader[*env[good]]{&env[good]{}}
		if err := injectSpawner(up, start(c.p, c.err)); err != nil {
			t.Fatal(err)
		}
		p, err := up.env.newProc("x", nil, []*os.File{nil}, []string{"a", "b"})
		if p != c.p || fmt.Sprint(err) != c.want && (err != nil || c.want != "") {
			t.Errorf("%v, %v, want %q", p, err, c.want)
		}
	}
	for _, up := range []any{
		&struct{ x int }{},
		&upgrader[env[good]]{},
		&upgrader[*env[good]]{},
		&upgrader[*int]{new(int)},
		&upgrader[*struct{}]{&struct{}{}},
		&upgrader[*env[int]]{&env[int]{}},
		&upgrader[*env[func()]]{&env[func()]{}},
		&upgrader[*env[func(string, []string, []*os.File, []string) error]]{&env[func(string, []string, []*os.File, []string) error]{}},
		&upgrader[*env[func(string, []string, []*os.File, []string) (int, error)]]{&env[func(string, []string, []*os.File, []string) (int, error)]{}},
		&upgrader[*env[func(string, []string, []*os.File, []string) (io.Closer, error)]]{&env[func(string, []string, []*os.File, []string) (io.Closer, error)]{}},
		&upgrader[*env[func(string, []string, []uintptr, []string) (process, error)]]{&env[func(string, []string, []uintptr, []string) (process, error)]{}},
	} {
		err := injectSpawner(up, nil)
		if err == nil || !strings.HasPrefix(err.Error(), "this tableflip has no f") ||
			!strings.HasSuffix(err.Error(), ": use github.com/cloudflare/tableflip v1.2.3") {
			t.Errorf("%T: %v", up, err)
		}
	}
	// The real one, as far as types go: TestLife uses it.
	f, ok := reflect.TypeFor[tableflip.Upgrader]().FieldByName("env")
	if !ok || f.Type.Kind() != reflect.Pointer {
		t.Fatalf("tableflip has changed: %v", f)
	}
	if f, ok := f.Type.Elem().FieldByName("newProc"); !ok || f.Type.Kind() != reflect.Func {
		t.Fatalf("tableflip has changed: %v", f)
	}
}
