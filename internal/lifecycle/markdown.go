package lifecycle

import (
	"fmt"
	"strings"
)

// Markdown is the table as text for people: for every state the events that
// change something, and the names of those that do not. TABLE.md is its output.
func Markdown() string {
	var b strings.Builder
	b.WriteString("# The life of a worker\n\n" +
		"What an event does to a worker, state by state. `go test ./internal/lifecycle -update`\n" +
		"writes this file from `table.go`; do not edit it.\n")
	for s := range numStates {
		fmt.Fprintf(&b, "\n## %v\n\n", s)
		var rows, none []string
		for e := range numEvents {
			next, effect := Next(s, e)
			switch {
			case next == s && effect == 0:
				none = append(none, e.String())
			case next == s:
				rows = append(rows, fmt.Sprintf("| %v | | %s |\n", e, effects(effect)))
			default:
				rows = append(rows, fmt.Sprintf("| %v | **%v** | %s |\n", e, next, effects(effect)))
			}
		}
		if len(rows) > 0 {
			b.WriteString("| event | enters | effects |\n|---|---|---|\n")
			b.WriteString(strings.Join(rows, ""))
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "Nothing happens on: %s.\n", strings.Join(none, ", "))
	}
	return b.String()
}

func effects(f Effect) string { return strings.ReplaceAll(f.String(), "+", ", ") }
