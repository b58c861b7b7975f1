// Package golden compares formats that cross versions with files, for the tests of
// the packages that speak them.
package golden

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files of today's formats")

// Update reports whether the files are to be written.
func Update() bool { return *update }

// Check compares got, one JSON value a line, with a file of testdata, which -update
// writes.
func Check(t testing.TB, file string, got [][]byte) {
	t.Helper()
	path := filepath.Join("testdata", file)
	text := append(bytes.Join(got, []byte("\n")), '\n')
	if *update {
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want := Lines(t, file)
	for i := range max(len(got), len(want)) {
		var g, w []byte
		if i < len(got) {
			g = got[i]
		}
		if i < len(want) {
			w = want[i]
		}
		if !bytes.Equal(g, w) {
			t.Errorf("%s, line %d:\n got %s\nwant %s\n"+
				"Processes of other versions read and write this: the meaning of a field may never change, nor its name. "+
				"If something was added that they can do without, run this test with -update; everything else needs a new field.", path, i+1, g, w)
		}
	}
}

// Lines are those of a file of testdata.
func Lines(t testing.TB, file string) [][]byte {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", file))
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Split(bytes.TrimSuffix(b, []byte("\n")), []byte("\n"))
}

// JSON is v as it is sent.
func JSON(t testing.TB, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Read decodes a line into a new T.
func Read[T any](t testing.TB, line []byte) (v T) {
	t.Helper()
	if err := json.Unmarshal(line, &v); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return v
}

// Later is a line as a later version may send it: with a field that nobody knows yet
// before each of the named ones.
func Later(line []byte, before ...string) []byte {
	for _, key := range before {
		key := `"` + key + `":`
		line = bytes.ReplaceAll(line, []byte(key), []byte(`"of a later version":{"x":[1,null,"y"]},`+key))
	}
	return line
}

// Jumps are by how much a clock may be set between two processes.
var Jumps = []time.Duration{
	0, time.Second, -time.Second, time.Hour, -time.Hour, 10 * 365 * 24 * time.Hour, -10 * 365 * 24 * time.Hour,
}

var times = regexp.MustCompile(`"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d[^"]*"`)

// Ahead is a text as it is from a process whose time of day is ahead of this one's by d.
func Ahead(text []byte, d time.Duration) []byte {
	return times.ReplaceAllFunc(text, func(quoted []byte) []byte {
		at, err := time.Parse(`"`+time.RFC3339Nano+`"`, string(quoted))
		if err != nil {
			panic(err) // a text of a test's own
		}
		return []byte(at.Add(d).Format(`"` + time.RFC3339Nano + `"`))
	})
}
