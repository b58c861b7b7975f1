package deathtest_test

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"strings"
	"sync"
	"time"
)

var measure = flag.Bool("costs", false, "write what rows have cost to "+costsFile+", for -run Table -update")

const costsFile = "testdata/costs.json"

// cost is what the failure of a process costs where that can't be nothing, at most.
type cost struct {
	MS   int64 `json:"ms,omitempty"`   // until all was as it should be, after a kill
	Lost int   `json:"lost,omitempty"` // requests, all of which the process had
	Idle int   `json:"idle,omitempty"` // connections that were closed between two requests
}

func (c cost) String() string {
	var list []string
	if c.MS > 0 {
		list = append(list, fmt.Sprintf("%.1f s", max(0.1, float64(c.MS)/1000)))
	}
	if c.Lost > 0 {
		list = append(list, fmt.Sprintf("%d lost", c.Lost))
	}
	if c.Idle > 0 {
		list = append(list, fmt.Sprintf("%d closed", c.Idle))
	}
	return strings.Join(list, ", ")
}

func (c cost) most(o cost) cost {
	return cost{max(c.MS, o.MS), max(c.Lost, o.Lost), max(c.Idle, o.Idle)}
}

// row is the name of one in the file.
func row(kills bool, st step, v victim) string {
	how := "stopped"
	if kills {
		how = "killed"
	}
	return strings.Join([]string{how, string(st.way), st.name, string(v)}, "/")
}

func readCosts() (costs map[string]cost, err error) {
	b, err := os.ReadFile(costsFile)
	if err == nil {
		err = json.Unmarshal(b, &costs)
	}
	return costs, err
}

var measured = struct {
	sync.Mutex
	costs map[string]cost
}{costs: map[string]cost{}}

// paid notes what a trial has cost, if that is wanted: the most of all runs (-count) of this process.
// What was measured before is forgotten.
func (tr trial) paid(kills bool, c cost, took time.Duration) {
	tr.t.Helper()
	if kills {
		c.MS = took.Milliseconds()
	}
	tr.t.Logf("cost: %v", c)
	if !*measure || tr.t.Failed() {
		return
	}
	measured.Lock()
	defer measured.Unlock()
	name := row(kills, tr.step, tr.victim)
	measured.costs[name] = measured.costs[name].most(c)
	all, err := readCosts()
	if err == nil {
		maps.Copy(all, measured.costs)
		var b []byte
		if b, err = json.MarshalIndent(all, "", "\t"); err == nil {
			err = os.WriteFile(costsFile, append(b, '\n'), 0o644)
		}
	}
	if err != nil {
		tr.t.Error(err)
	}
}
