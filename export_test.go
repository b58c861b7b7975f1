package handover

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/handover-go/handover/upgrader"
)

// formerState is all that parents of the first version told one another, and what they
// knew of it.
type formerState struct {
	Version int                        `json:"v"`
	Groups  map[string]json.RawMessage `json:"groups"`
	Workers map[string]formerWorker    `json:"workers,omitempty"`
	Residue map[string][]byte          `json:"residue,omitempty"`
}

type formerWorker struct {
	Ready      time.Time `json:"ready,omitzero"`
	Cause      string    `json:"cause,omitempty"`
	Reason     string    `json:"reason,omitempty"`
	Blamed     time.Time `json:"blamed,omitzero"`
	Dismissed  bool      `json:"dismissed,omitempty"`
	Terminated bool      `json:"terminated,omitempty"`
	Killed     bool      `json:"killed,omitempty"`
}

// BeFormer makes this process a parent of the first version, in what it hands on and
// in what it can make of what it gets.
func BeFormer() {
	outgoing = func(l upgrader.Legacy) upgrader.Legacy {
		var st parentState
		must(json.Unmarshal(l.State, &st))
		return former(l, st.Set)
	}
	incoming = func(l upgrader.Legacy) upgrader.Legacy {
		for _, f := range l.Files {
			if !known(f) {
				f.File.Close()
			}
		}
		return former(l, l.State)
	}
}

// AskEarly asks a parent for its metrics whose predecessor may still go on instead.
func AskEarly(w http.ResponseWriter, r *http.Request) {
	(&parent{released: make(chan struct{})}).serveMetrics(w, r)
}

// former is what the first version knows of a legacy and of its state.
func former(l upgrader.Legacy, state json.RawMessage) upgrader.Legacy {
	var st formerState
	if len(state) > 0 {
		must(json.Unmarshal(state, &st))
	}
	st.Version = 1
	b, err := json.Marshal(st)
	must(err)
	return upgrader.Legacy{
		State: b,
		Files: slices.DeleteFunc(slices.Clone(l.Files), func(f upgrader.NamedFile) bool { return !known(f) }),
	}
}

func known(f upgrader.NamedFile) bool {
	return strings.HasPrefix(f.Name, "pidfd:") || strings.HasPrefix(f.Name, "channel:")
}

func must(err error) {
	if err != nil {
		panic(err)
	}
}
