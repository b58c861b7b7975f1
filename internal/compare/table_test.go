//go:build unix

package main

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

func TestDocument(t *testing.T) {
	t.Parallel()
	var failures load.Failures
	failures[load.Reset] = 7
	rows := []row{
		{name: "handover, library", restart: "HUP", version: "Go 1.26", requests: 100, values: [6]float64{0, 0, 5.04, 2, 40, 20}},
		{name: "other", behind: time.Second, restart: "USR1", version: "other 3", requests: 90, failures: failures, kinds: []string{"something else"},
			values: [6]float64{7, 80, 5.01, 2.5, math.NaN(), 3}},
	}
	text := document(rows, "a machine", 5, 250*time.Second)
	for _, want := range []string{
		"| handover, library | HUP | **0** | **0** | **5.0 ms** | **2.0 ms** | **40 ms** | 20 MB |\n",
		"| other | USR1 | 7 | 80 | **5.0 ms** | 2.5 ms | never | **3 MB** |\n",
		"Handover is not the best in: peak memory (3 MB with other, 20 MB with handover, library).\n",
		"  - other: 7 of 90, on a machine that was 1s late with one (reset 7); something else\n",
		"in about 5 minutes", "Measured on a machine.", "5 restarts, at least", "Versions: Go 1.26; other 3.\n",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("no %q in\n%s", want, text)
		}
	}
	if text := document(rows[:1], "", 5, time.Second); !strings.Contains(text, "There is no column in which") {
		t.Errorf("alone it is the best:\n%s", text)
	}
	if text := behind(rows[1:]); text != "" {
		t.Errorf("without handover: %q", text)
	}
}

// Every file that a peer is given is one that can be written.
func TestFiles(t *testing.T) {
	t.Parallel()
	list, err := files.ReadDir("peers")
	if err != nil || len(list) < 8 {
		t.Fatal(list, err)
	}
	e := &env{dir: t.TempDir(), addr: "127.0.0.1:1", tools: tools{backend: "127.0.0.1:2"}}
	for _, f := range list {
		if err := e.write(f.Name()); err != nil {
			t.Error(err)
		}
	}
}
