//go:build unix

package configfile

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/workerset"
)

// TestFaults: all that is wrong is told with its line and key, and in the order of the file.
func TestFaults(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"syntax", "name = \"shop\"\nworkers = \n", "handover.toml:2: unexpected character U+000A at start of value"},
		{"twice", "workers = 1\n\nworkers = 2\n", "handover.toml:3: key workers is already defined"},
		{"table twice", "[groups.web]\n[groups.web]\n", "handover.toml:2: table web already exists"},
		{"bytes", "name = \"\xff\"\n", "handover.toml:1: invalid"},
		{"unknown", "x = 1\ndrain_timeout = \"1s\"\nwokers = 1\nlimit.nofile = 1\ncommand = [\"x\"]\nfile = \"other\"\n", `handover.toml:1: unknown key "x"
handover.toml:2: unknown key "drain_timeout": did you mean drain-timeout?
handover.toml:3: unknown key "wokers": did you mean workers?
handover.toml:6: unknown key "file"`},
		{"unknown in a group", "[groups.web]\nsockts = []\npidfile = 1\n[groups.\"b.c\"]\nx.y = 1\n", `handover.toml:2: unknown key "groups.web.sockts": did you mean sockets?
handover.toml:3: unknown key "groups.web.pidfile"
handover.toml:5: unknown key "groups.b.c.x"`},
		{"types", `name = 1
listen = "http=tcp://:1"
command = ["x", 1]
workers = "4"
surge = 1.5
drain-timeout = 10
stop-delay = 2026-01-01
ready = true
umask = 27
limit = ["nofile=1"]
env.A = 1
silent = "yes"
user = ""
drain-signal = 15
`, `handover.toml:1: name: a string (that is not empty) is needed, not the number 1
handover.toml:2: listen: an array of strings is needed, not the string "http=tcp://:1"
handover.toml:3: command: an array of strings is needed, not this array
handover.toml:4: workers: a number, or "auto", is needed, not the string "4"
handover.toml:5: surge: a number is needed, not the number 1.5
handover.toml:6: drain-timeout: a time with its unit, as a string such as "10s", is needed, not the number 10
handover.toml:7: stop-delay: a time with its unit, as a string such as "10s", is needed, not 2026-01-01
handover.toml:8: ready: a string such as "notify" is needed, not true
handover.toml:9: umask: a string of octal digits such as "027" is needed, not the number 27
handover.toml:10: limit: a table of numbers and of strings such as "1024:65536" and "unlimited" is needed, not this array
handover.toml:11: env: a table of strings is needed, not this table
handover.toml:12: silent: true or false is needed, not the string "yes"
handover.toml:13: user: a string (that is not empty) is needed, not the string ""
handover.toml:14: drain-signal: a string such as "TERM" is needed, not the number 15`},
		{"values", `command = ["x"]
workers = 0
surge = 0
drain-timeout = "soon"
heartbeat = "0s"
ready = "soon"
umask = "8"
limit = { nofile = "many" }
drain-signal = "none"
reopen-signal = "HUH"
node-channel = "perhaps"
offer = "gladly"
log = "xml"
`, `handover.toml:2: workers "0": a number from 1, or auto
handover.toml:3: surge 0: must not be 0
handover.toml:4: drain-timeout "soon": a time is needed, such as 10s, 500ms or 1m30s
handover.toml:5: heartbeat 0s: must not be 0
handover.toml:6: ready: readiness "soon": use notify, channel, http:/PATH, or a time such as 200ms
handover.toml:7: umask "8": an octal number up to 777
handover.toml:8: limit "nofile=many": write it as NAME=SOFT or NAME=SOFT:HARD, numbers or unlimited, for example nofile=65536
handover.toml:9: drain-signal "none": a signal such as TERM, USR1 or 15 is needed
handover.toml:10: reopen-signal "HUH": a signal such as TERM, USR1 or 15 is needed
handover.toml:11: node-channel "perhaps": auto, yes, no or cluster
handover.toml:12: offer "gladly": none or message
handover.toml:13: log "xml": text or json`},
		{"groups", `groups.a = 1
lame-duck = "1s"
after = ["x"]
[groups.b]
lame-duck = "1s"
workers = 0
ready = "auto"
[groups."c d"]
[groups."e:f"]
`, `handover.toml:1: a group is a table, [groups.a], not the number 1
handover.toml:3: after is about a group: it belongs below a [groups.NAME]
handover.toml:5: lame-duck is about the whole service: it belongs before the first [groups.NAME]
handover.toml:6: groups.b.workers 0: that can't be said of a group: leave it out, and it is as the service says
handover.toml:7: groups.b.ready auto: that can't be said of a group: leave it out, and it is as the service says
handover.toml:8: group name "c d": ' ' is not allowed, use letters, digits, '.', '-' and '_'
handover.toml:9: group name "e:f": ':' is not allowed, use letters, digits, '.', '-' and '_'`},
		{"in one line", "\ngroups = { web = { wokers = 1, workers = 0 }, b = 1 }\n", `handover.toml:2: unknown key "groups.web.wokers": did you mean workers?
handover.toml:2: a group is a table, [groups.b], not the number 1
handover.toml:2: groups.web.workers 0: that can't be said of a group`},
		{"no groups", "[[groups]]\n", "handover.toml:1: groups are tables, [groups.NAME] for each, not this array"},
		{"no program", "umask = \"027\"\n[groups.web]\nlimit.core = 1\n", `handover.toml:1: umask is about a program, and none is given: handover run [flags] -- program args…, or the key command
handover.toml:3: groups.web.limit is about a program, and this group has none: give it a command`},
		{"a group without program", "[groups.a]\ncommand = [\"x\"]\n[groups.b]\numask = \"027\"\n",
			"handover.toml:4: groups.b.umask is about a program, and this group has none: give it a command"},
		{"contradictions", "anchor = true\nno-anchor = true\nsingle = true\n[groups.web]\n", `handover.toml:2: no-anchor: an anchor and no anchor: ask for one of them
handover.toml:3: single: a single process runs one app: groups need parent and workers`},
		{"sockets", "listen = [\"8080\"]\n", `handover.toml:1: listen: listen address "8080": write it as [NAME=]NETWORK://ADDRESS, for example http=tcp://127.0.0.1:8080`},
		{"of the service, in each group", "surge = -1\n[groups.a]\n[groups.b]\n", "handover.toml:1: surge: surge -1, must not be negative"},
		{"of a group", `listen = ["http=tcp://:1"]
surge = -1
[groups.a]
surge = 1
burst = -1
after = ["c"]
sockets = ["http", "x"]
[groups.b]
agent = true
workers = 2
[groups.d]
agent = true
sockets = ["http"]
`, `handover.toml:10: groups.b.workers: 2 workers, an agent is one
handover.toml:13: groups.d.sockets: an agent has no sockets, and this one has http`},
		{"of a group, too", `listen = ["http=tcp://:1"]
surge = -1
[groups.a]
surge = 1
burst = -1
after = ["c"]
sockets = ["http", "x"]
[groups.b]
user = "nobody at all"
`, `handover.toml:2: surge: surge -1, must not be negative
handover.toml:5: groups.a.burst: a burst of -1 in 1m0s, must not be negative
handover.toml:6: groups.a.after: it goes after "c", and there is no such group
handover.toml:7: groups.a.sockets: there is no socket "x"
handover.toml:9: groups.b.user: user "nobody at all": there is no such user`},
		{"of the whole group", "listen = [\"http=unix:///s\"]\nready = \"http:/\"\ncommand = [\"x\"]\n[groups.a]\nsockets = []\n",
			"handover.toml:2: ready: readiness http:/: it has no socket to ask on"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(file(c.text))
			if err == nil || err.Error() != c.want && !strings.HasPrefix(err.Error(), c.want) || c.want == "" {
				t.Errorf("%v\n\nnot\n\n%s", err, c.want)
			}
		})
	}
}

// TestPrecedence: flags win over variables, those over the file, and that over the defaults;
// and what comes from outside of the file over what a group says.
func TestPrecedence(t *testing.T) {
	in := file(`workers = 1
surge = 1
drain-timeout = "1s"
heartbeat = "1s"
env = { A = "file", B = "file", C = "file" }
command = ["of the file"]
limit.nofile = 1

[groups.agent]
agent = true
workers = 1
drain-timeout = "2s"

[groups.web]
workers = 2
surge = 2
drain-timeout = "2s"
heartbeat = "2s"
env = { B = "group", C = "group" }
limit.core = 2
`)
	in.Environ = []string{
		"HANDOVER_WORKERS=3", "HANDOVER_SURGE=3", "HANDOVER_DRAIN_TIMEOUT=3s", "HANDOVER_ENV=C=variable\nD=variable", "HANDOVER_HUNG_AFTER=3s",
		"HANDOVER_NAME=", "HANDOVER_LIMIT=nofile=3 as=3",
	}
	in.Flags = map[string][]string{"workers": {"4"}, "drain-timeout": {"4s"}, "env": {"D=flag"}, "limit": {"as=4"}}
	in.Command = []string{"of", "the line"}
	r := parsed(t, in)
	if r.Workers != 4 || r.Surge != 3 || r.DrainTimeout != 4*time.Second || r.Heartbeat != time.Second || r.HungAfter != 3*time.Second ||
		r.StartTimeout != 30*time.Second || r.Name != "of" || !reflect.DeepEqual(r.Command, in.Command) {
		t.Errorf("%+v", r.Config)
	}
	agent, web := r.Groups[0], r.Groups[1]
	if agent.Workers != 1 || agent.DrainTimeout != 0 {
		t.Errorf("%+v", agent)
	}
	if web.Workers != 0 || web.Surge != 0 || web.DrainTimeout != 0 || web.Heartbeat != 2*time.Second {
		t.Errorf("%+v", web)
	}
	if got, want := variablesOf(r.Env), "A=file B=file C=variable D=flag"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	if got, want := variablesOf(append(r.Env, web.Env...)), "A=file B=group C=variable D=flag"; got != want {
		t.Errorf("%s, not %s", got, want)
	}
	want := map[string]workerset.Limit{"nofile": {Soft: 3, Hard: 3}, "as": {Soft: 4, Hard: 4}, "core": {Soft: 2, Hard: 2}}
	if !reflect.DeepEqual(web.Program.Limits, want) {
		t.Errorf("%v, not %v", web.Program.Limits, want)
	}
	delete(want, "core")
	if !reflect.DeepEqual(r.Program.Limits, want) {
		t.Errorf("%v, not %v", r.Program.Limits, want)
	}
	g := parsed(t, file("command = [\"x\"]\nlimit.nofile = 1\nlimit.core = 1\n[groups.web]\nlimit.core = 2\n")).Groups[0]
	if got := g.Program.Limits; got["nofile"].Soft != 1 || got["core"].Soft != 2 {
		t.Errorf("a group's limits are %v", got)
	}
	if !reflect.DeepEqual(web.Command, in.Command) {
		t.Errorf("the group with limits of its own executes %q", web.Command)
	}
}

// variablesOf is what a process would find in such an environment.
func variablesOf(env []string) string {
	all, _ := variables.get((*environ)(&env)).(map[string]any)
	return strings.Trim(strings.ReplaceAll(fmt.Sprint(all), ":", "="), "map[]")
}

// TestWhereItWasSaid: a fault of a flag or a variable is told with its name.
func TestWhereItWasSaid(t *testing.T) {
	for _, c := range []struct {
		in   Input
		want string
	}{
		{Input{Flags: map[string][]string{"workers": {"x"}}}, `--workers "x": a number from 1, or auto`},
		{Input{Flags: map[string][]string{"surge": {"-1"}}}, "--surge: surge -1, must not be negative"},
		{Input{Flags: map[string][]string{"umask": {"0"}}}, "--umask is about a program, and none is given: handover run [flags] -- program args…, or the key command"},
		{Input{Flags: map[string][]string{"env": {"A=1", "B"}}}, `--env "B": write it as NAME=VALUE`},
		{Input{Environ: []string{"HANDOVER_SURGE=-1"}}, "HANDOVER_SURGE: surge -1, must not be negative"},
		{Input{Environ: []string{"HANDOVER_ANCHOR=1"}}, `HANDOVER_ANCHOR "1": true or false`},
		{Input{Environ: []string{"HANDOVER_WORKRES=1", "HANDOVER_COMMAND=x", "HANDOVER_X=1"}},
			"HANDOVER_COMMAND is no variable of handover\nHANDOVER_WORKRES is no variable of handover: did you mean HANDOVER_WORKERS?\nHANDOVER_X is no variable of handover"},
		{Input{Command: []string{"x"}, Flags: map[string][]string{"single": {"true"}}}, "--single: a single process runs the app: a command needs parent and workers"},
	} {
		if _, err := Parse(c.in); err == nil || err.Error() != c.want {
			t.Errorf("%+v: %v, not %s", c.in, err, c.want)
		}
	}
	// Of whoever may be of another version nobody can say that it is wrong.
	for _, own := range ownVariables {
		if _, err := Parse(Input{Environ: []string{own + "=1", "HANDOVER_OF_TOMORROW=1"}}); err != nil {
			t.Error(err)
		}
	}
}

// TestDirectories: in a file they are relative to the file.
func TestDirectories(t *testing.T) {
	r := parsed(t, file("directory = \"shop\"\npid-file = \"pid\"\n[groups.a]\ndirectory = \"sub\"\n"))
	if r.Dir != "/etc/shop" || r.PIDFile != "pid" || r.Groups[0].Dir != "sub" {
		t.Errorf("%q, %q, %q", r.Dir, r.PIDFile, r.Groups[0].Dir)
	}
	r = parsed(t, file("[groups.a]\ndirectory = \"sub\"\n[groups.b]\ndirectory = \"/b\"\n"))
	if r.Dir != "" || r.Groups[0].Dir != "/etc/sub" || r.Groups[1].Dir != "/b" {
		t.Errorf("%q, %q, %q", r.Dir, r.Groups[0].Dir, r.Groups[1].Dir)
	}
	in := file("directory = \"shop\"\n")
	in.Flags, in.Here = map[string][]string{"directory": {"shop"}}, "/home"
	if r := parsed(t, in); r.Dir != "/home/shop" {
		t.Errorf("that of a flag is %q", r.Dir)
	}
}

// TestDefaults: what nobody says.
func TestDefaults(t *testing.T) {
	r := parsed(t, Input{})
	if r.Name != "handover" || !reflect.DeepEqual(r.Listen, []string{DefaultListen}) || r.Control != "auto" || r.HasProgram() {
		t.Errorf("%+v", r.Settings)
	}
	again(t, r)
	r = parsed(t, Input{Command: []string{"/srv/shop/server", "-v"}})
	if r.Name != "server" || r.Listen != nil || !r.HasProgram() {
		t.Errorf("%+v", r.Settings)
	}
	again(t, r)
	r = parsed(t, file("[groups.a]\ncommand = [\"x\"]\n"))
	if r.Name != "handover" || r.Listen != nil || !r.HasProgram() {
		t.Errorf("%+v", r.Settings)
	}
	for form, want := range map[string]workerset.Output{
		"": workerset.OutputPrefixed, "log = \"json\"\n": workerset.OutputJSON, "raw-output = true\nlog = \"json\"\n": workerset.OutputRaw,
	} {
		if r := parsed(t, file("command = [\"x\"]\n"+form)); r.Program.Output != want {
			t.Errorf("%q: output %v", form, r.Program.Output)
		}
	}
}

// TestExplain: an error of a running service is told with the line, any other as it is.
func TestExplain(t *testing.T) {
	r := parsed(t, file("command = [\"x\"]\n[groups.a]\n[groups.b]\ncommand = [\"y\"]\n"))
	other := errors.New("the sky has fallen")
	if err := r.Explain(other); err != other {
		t.Errorf("%v", err)
	}
	about := func(group, field, why string) error {
		return &handover.FieldError{Group: group, Field: field, Err: errors.New(why)}
	}
	both := fmt.Errorf("%w (%w)", errors.New("one"), errors.New("and another"))
	err := r.Explain(fmt.Errorf("%w: %w", handover.ErrConfig, errors.Join(
		about("b", "Command", "no y"), about("a", "Command", "no x"), about("", "Command", "no x"), both, about("a", "Dir", "no place"),
		fmt.Errorf("%w: %w", workerset.ErrConfig, about("b", "Count", "none")), about("", "Handlers", "none at all"))))
	want := "one (and another)\nnone at all\nhandover.toml:1: command: no x\nhandover.toml:2: groups.a: no place\nhandover.toml:3: groups.b: none\nhandover.toml:4: groups.b.command: no y"
	if err.Error() != want {
		t.Errorf("%v\n\nnot\n\n%s", err, want)
	}
	var list Errors
	if !errors.As(err, &list) || list[2].Line() != 1 {
		t.Errorf("%#v", err)
	}
}

// TestExampleFile: that of the project is right, and says nothing twice.
func TestExampleFile(t *testing.T) {
	path := filepath.Join("..", "..", "deploy", "handover.toml")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	r := parsed(t, Input{File: path, Text: text, Dir: "/etc/shop"})
	again(t, r)
	if len(r.Groups) < 3 {
		t.Errorf("%d groups", len(r.Groups))
	}
}

// FuzzParse: no file, variable or flag ends the program, and what is right can be printed and
// read again.
func FuzzParse(f *testing.F) {
	for name, ex := range examples {
		f.Add(name+" = "+ex.toml, "HANDOVER_WORKERS=3", "drain-timeout", "3s")
		f.Add("command = [\"x\"]\n[groups.web]\n"+name+" = "+ex.toml, keyNamed(name).Env()+"="+ex.env, name, strings.Join(ex.flags, " "))
	}
	for _, text := range []string{
		"", "a", "groups = 1", "[groups]\na = 1", "[[groups]]", "groups.a.b.c = 1", "groups = { a = { b = { c = 1 } } }", "\"\" = 1", "[groups.\"\"]",
		"listen = [\"http=unix://%00\"]", "env = { \"=\" = \"\" }", "env = { \"\" = \"x\" }", "name = \"\\u0000\"", "user = \"0:0\"\nuser2 = 1", "limit = { nofile = -1 }",
		"\xef\xbb\xbfworkers = 1", "workers = 1\r\nsurge = 2\r\n", "groups.\"a.b\".workers = 1", "directory = \"..\"", "x = [{ a = 1 }, { a = 2 }]", "drain-signal = \"64\"\ncommand = [\"x\"]",
		"limit = { \"a=b\" = 1 }\ncommand = [\"x\"]", "per = \"1ns\"", "ready = \"1h\"", "[env]\n\"a b\" = \"\\n\"",
	} {
		f.Add(text, "", "", "")
	}
	f.Fuzz(func(t *testing.T, text, variable, flag, value string) {
		in := Input{File: "f", Text: []byte(text), Dir: "/d", Here: "/h", Environ: []string{variable}, Command: nil}
		if k := keyNamed(flag); k != nil && k.Flag() {
			in.Flags = map[string][]string{flag: {value}}
		}
		r, err := Parse(in)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without a word")
			}
			return
		}
		again(t, r)
	})
}
