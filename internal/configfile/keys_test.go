//go:build unix

package configfile

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/handover-go/handover"
)

// unsaid are the fields of which a file can't speak, and why.
var unsaid = map[string]string{
	"Config.Source":         "it is the file",
	"Config.TicketRotation": "for workers of a binary that speaks TLS: neither the built-in app nor a command's workers have the keys",
	"Config.Handlers":       "a function",
	"Config.InParent":       "a function",
	"Config.Started":        "a function",
	"Config.Events":         "a function",
	"Config.Logger":         "made of log",
	"Config.Groups":         "the tables of groups",
	"ProgramConfig.Output":  "made of log and raw-output",
	"Config.Program":        "its fields are keys",
	"Config.Recycle":        "its fields are keys",
	"Group.Recycle":         "its fields are keys",
	"Recycle.MaxMemory":     "set by max-memory, as a part of the Recycle",
	"Recycle.PSS":           "set by max-memory",
	"Group.Program":         "its fields are keys",
	"Group.Name":            "the table's name",
	"Group.App":             "a function",
	"Settings.Config":       "its fields are keys",
}

// TestEveryFieldHasAKey: what a handover.Config, a Group or a ProgramConfig can say, a file
// can. Who adds a field adds a line to Keys.
func TestEveryFieldHasAKey(t *testing.T) {
	var s Settings
	var g handover.Group
	keyed := map[uintptr]*Key{}
	for _, k := range Keys {
		if k.service != nil {
			keyed[reflect.ValueOf(k.service(&s)).Pointer()] = k
		}
		if k.group != nil {
			keyed[reflect.ValueOf(k.group(&g)).Pointer()] = k
		}
	}
	for _, v := range []reflect.Value{
		reflect.ValueOf(&s).Elem(), reflect.ValueOf(&s.Config).Elem(), reflect.ValueOf(&s.Program).Elem(),
		reflect.ValueOf(&g).Elem(), reflect.ValueOf(&g.Program).Elem(), reflect.ValueOf(&s.Recycle).Elem(), reflect.ValueOf(&g.Recycle).Elem(),
	} {
		for i := range v.NumField() {
			field := v.Type().Field(i).Name
			name := v.Type().Name() + "." + field
			k := keyed[v.Field(i).Addr().Pointer()]
			if _, known := unsaid[name]; known {
				continue
			}
			if k == nil {
				t.Errorf("no key sets %s: add a line to Keys, or to this test why there can be none", name)
			} else if fieldKey(field) != k {
				t.Errorf("an error about %s would not be located at %s", name, k.Name)
			}
		}
	}
}

// example is one way to say each key, and what is the same as a flag and as a variable.
var examples = map[string]struct {
	toml  string
	flags []string
	env   string
}{
	"name":               {`"shop"`, []string{"shop"}, "shop"},
	"listen":             {`["a=tcp://:1", "b=udp://:2"]`, []string{"a=tcp://:1", "b=udp://:2"}, "a=tcp://:1 b=udp://:2"},
	"command":            {`["node", "server.js"]`, nil, ""},
	"args":               {`["-v"]`, nil, ""},
	"agent":              {`true`, nil, ""},
	"sockets":            {`["http"]`, nil, ""},
	"after":              {`["other"]`, nil, ""},
	"directory":          {`"/srv/shop"`, []string{"/srv/shop"}, "/srv/shop"},
	"user":               {`"www-data"`, []string{"www-data"}, "www-data"},
	"env":                {`{ A = "b c", C = "d=e" }`, []string{"A=b c", "C=d=e"}, "A=b c\n C=d=e\n"},
	"workers":            {`7`, []string{"7"}, "7"},
	"surge":              {`2`, []string{"2"}, "2"},
	"drain-timeout":      {`"1m"`, []string{"60s"}, "60s"},
	"stop-delay":         {`"1s"`, []string{"1s"}, "1s"},
	"grace":              {`"1m"`, []string{"60s"}, "60s"},
	"lame-duck":          {`"500ms"`, []string{"500ms"}, "0.5s"},
	"max-conns":          {`1000`, []string{"1000"}, "1000"},
	"start-timeout":      {`"1s"`, []string{"1s"}, "1s"},
	"upgrade-timeout":    {`"1s"`, []string{"1s"}, "1s"},
	"ready":              {`"http:/healthz"`, []string{"http:/healthz"}, "http:/healthz"},
	"heartbeat":          {`"1s"`, []string{"1s"}, "1s"},
	"hung-after":         {`"-1s"`, []string{"-1s"}, "-1s"},
	"probation":          {`"0s"`, []string{"0"}, "0s"},
	"probation-failures": {`0`, []string{"0"}, "0"},
	"health":             {`"http:/healthz"`, []string{"http:/healthz"}, "http:/healthz"},
	"max-memory":         {`"pss:512M"`, []string{"pss:0.5G"}, "pss:512MiB"},
	"max-age":            {`"24h"`, []string{"1440m"}, "24h"},
	"max-requests":       {`1000`, []string{"1000"}, "1000"},
	"recycle-jitter":     {`0`, []string{"0"}, "0.0"},
	"keep-output":        {`true`, []string{"true"}, "true"},
	"control-group":      {`"0"`, []string{"0"}, "0"},
	"status-listen":      {`"tcp://127.0.0.1:9090"`, []string{"tcp://127.0.0.1:9090"}, "tcp://127.0.0.1:9090"},
	"burst":              {`5`, []string{"5"}, "5"},
	"per":                {`"5s"`, []string{"5s"}, "5s"},
	"max-restarts":       {`5`, []string{"5"}, "5"},
	"restart-window":     {`"5s"`, []string{"5s"}, "5s"},
	"keep-failed":        {`true`, []string{"true"}, "true"},
	"silent":             {`true`, []string{"true"}, "true"},
	"drain-signal":       {`"QUIT"`, []string{"SIGQUIT"}, "3"},
	"reopen-signal":      {`"USR1"`, []string{"usr1"}, "USR1"},
	"node-channel":       {`"yes"`, []string{"yes"}, "yes"},
	"offer":              {`"message"`, []string{"message"}, "message"},
	"umask":              {`"027"`, []string{"27"}, "0027"},
	"limit":              {`{ core = 0, nofile = "1024:65536", as = "unlimited" }`, []string{"as=infinity", "core=0", "nofile=1024:65536"}, "as=unlimited core=0:0 nofile=1024:65536"},
	"log":                {`"json"`, []string{"json"}, "json"},
	"raw-output":         {`true`, []string{"true"}, "true"},
	"control":            {`"/run/shop.sock"`, []string{"/run/shop.sock"}, "/run/shop.sock"},
	"pid-file":           {`"/run/shop.pid"`, []string{"/run/shop.pid"}, "/run/shop.pid"},
	"anchor":             {`true`, []string{"true"}, "true"},
	"no-anchor":          {`true`, []string{"true"}, "true"},
	"single":             {`true`, []string{"true"}, "true"},
}

func parsed(t *testing.T, in Input) *Result {
	t.Helper()
	r, err := Parse(in)
	if err != nil {
		t.Fatalf("%+v\n%s\n%v", in.Flags, in.Text, err)
	}
	r.Source = nil
	return r
}

func file(text string) Input { return Input{File: "handover.toml", Text: []byte(text), Dir: "/etc"} }

// TestEveryKey: each can be said in a file, of the service and of a group, by a flag and by a
// variable, with the same effect; and what is printed says it again.
func TestEveryKey(t *testing.T) {
	for _, k := range Keys {
		if k.flagOnly {
			continue
		}
		t.Run(k.Name, func(t *testing.T) {
			ex, ok := examples[k.Name]
			if !ok {
				t.Fatal("there is no example: add a line to this test")
			}
			if k.Name == "user" { // that anybody may be
				me := fmt.Sprintf("%d:%d", os.Getuid(), os.Getgid())
				ex.toml, ex.flags, ex.env = strconv.Quote(me), []string{me}, me
			}
			program, inGroup := "", "\n[groups.other]\n[groups.web]\n"
			if k.program {
				program = "command = [\"true\"]\n"
			}
			if k.service != nil || k.inherited {
				text := k.Name + " = " + ex.toml + "\n"
				if k.Name != keyCommand {
					text = program + text
				}
				r := parsed(t, file(text))
				again(t, r)
				plain := parsed(t, file(program))
				if reflect.DeepEqual(r.Settings, plain.Settings) {
					t.Error("it has no effect in a file")
				}
				if k.Flag() {
					in := file(program)
					in.Flags = map[string][]string{k.Name: ex.flags}
					if f := parsed(t, in); !reflect.DeepEqual(f.Settings, r.Settings) {
						t.Errorf("as a flag it is %+v, not %+v", f.Settings, r.Settings)
					}
					in = file(program)
					in.Environ = []string{"PATH=/bin", k.Env() + "=" + ex.env}
					if e := parsed(t, in); !reflect.DeepEqual(e.Settings, r.Settings) {
						t.Errorf("as a variable it is %+v, not %+v", e.Settings, r.Settings)
					}
				}
			}
			if k.group != nil {
				r := parsed(t, file(program+inGroup+k.Name+" = "+ex.toml+"\n"))
				again(t, r)
				if plain := parsed(t, file(program+inGroup)); reflect.DeepEqual(r.Groups[1], plain.Groups[1]) {
					t.Error("it has no effect in a group")
				} else if !reflect.DeepEqual(r.Groups[0], plain.Groups[0]) {
					t.Errorf("it has an effect in another group: %+v", r.Groups[0])
				}
			}
		})
	}
	for name := range maps.Keys(examples) {
		if keyNamed(name) == nil {
			t.Errorf("there is no key %s", name)
		}
	}
}

// again makes sure that what is printed of settings is a file that says the same.
func again(t *testing.T, r *Result) {
	t.Helper()
	text := r.TOML()
	back, err := Parse(Input{File: "printed", Text: text, Dir: "/elsewhere"})
	if err != nil {
		t.Fatalf("what was printed is wrong: %v\n%s", err, text)
	}
	back.Source, r.Source = nil, nil
	if !reflect.DeepEqual(back.Settings, r.Settings) {
		t.Errorf("printed and read again it is %+v, not %+v\n%s", back.Settings, r.Settings, text)
	}
	if second := back.TOML(); string(second) != string(text) {
		t.Errorf("printed again it is\n%s\nand was\n%s", second, text)
	}
}

// TestVariables: no flag's variable is one of the toolkit's own, of which this package knows
// all.
func TestVariables(t *testing.T) {
	for _, k := range Keys {
		if k.Flag() && slices.Contains(ownVariables, k.Env()) {
			t.Errorf("%s: its variable %s is the toolkit's own", k.Name, k.Env())
		}
	}
	root := filepath.Join("..", "..")
	found := map[string]bool{}
	err := filepath.WalkDir(root, func(path string, d os.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "testdata") {
			return err
		}
		b, err := os.ReadFile(path)
		for _, m := range regexp.MustCompile(`"(HANDOVER_[A-Z0-9_]*[A-Z0-9])[="]`).FindAllSubmatch(b, -1) {
			found[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	for name := range found {
		if !slices.Contains(ownVariables, name) && !slices.ContainsFunc(Keys, func(k *Key) bool { return k.Env() == name }) {
			t.Errorf("%s is a variable of the toolkit's that environ.go does not know", name)
		}
	}
	for _, name := range ownVariables {
		if !found[name] {
			t.Errorf("%s is nobody's", name)
		}
	}
}
