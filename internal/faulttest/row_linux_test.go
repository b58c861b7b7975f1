package faulttest_test

import (
	"flag"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
)

// row is one fault of the machine: how it is brought about, what has to be said, and what
// goes on.
type row struct {
	name  string // of the test: go test ./internal/faulttest -run 'TestMachine/NAME$'
	fault string // for docs/faults.md
	costs string // what it costs, for docs/faults.md
	says  []saying

	user  int                           // who the service runs as; 0: root
	more  func(s *service) []string     // arguments and a program, beside those of all services
	start func(s *service)              // changes how the service is started
	begin func(s *service) (end func()) // brings the fault about, while it serves; end takes it away

	long     bool   // takes much longer than others: see all
	plain    bool   // what serves is a program that knows little of what clients want
	children string // the name of processes that its workers leave

	// fails: an upgrade can't succeed as long as the fault lasts. It has to change nothing.
	fails bool
}

// saying is a text that has to be said somewhere; "…" stands for anything in a line.
type saying struct{ where, text string }

// Where something is said.
const (
	byUpgrade = "upgrade" // what handover upgrade prints
	byStatus  = "status"
	byLog     = "log"
)

// in reports whether a text is in an output.
func (y saying) in(out string) bool {
	parts := strings.Split(y.text, "…")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return regexp.MustCompile(strings.Join(parts, `[^\n]*`)).MatchString(out)
}

// missing tells what has to be said somewhere, and was not.
func (r row) missing(where, heard string) string {
	for _, y := range r.says {
		if y.where == where && !y.in(heard) {
			return fmt.Sprintf("%s does not say %q:\n%s", where, y.text, heard)
		}
	}
	return ""
}

// all reports whether what takes long is to be tested, too: with FAULTS=all, or a -run that
// names a row.
func all() bool {
	return os.Getenv("FAULTS") == "all" || strings.Contains(flag.Lookup("test.run").Value.String(), "/")
}

// TestMachine has a service under strict clients live through each fault. While it lasts, the
// service answers, says what is the matter, and is neither hurt by the death of a worker nor by
// an upgrade. When it is over all is as it was: the next upgrade succeeds, the workers are
// there, and nothing else, no process and no descriptor.
func TestMachine(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can mount, and be somebody else")
	}
	for _, r := range rows {
		if r.long && !all() {
			continue
		}
		t.Run(r.name, func(t *testing.T) {
			t.Parallel() // most of it is waiting
			r.test(t)
		})
	}
}

func (r row) test(t *testing.T) {
	s := start(t, r)
	s.begin()
	s.upgrade() // so that all is there that a parent with a predecessor has
	before := s.files()
	end := r.begin(s)
	parent := s.parent()
	s.kill()
	heard := map[string]string{}
	var code int
	if heard[byUpgrade], code = s.handover("upgrade", "--wait", "serve"); (code == 1) != r.fails || code > 1 {
		t.Errorf("upgrade: exit code %d\n%s", code, heard[byUpgrade])
	}
	if r.fails && s.parent() != parent {
		t.Error("an upgrade that has failed has changed the parent")
	}
	s.until(func() string { // it takes a moment to notice that no other worker can be started
		if heard[byStatus], code = s.handover("status"); code != 0 {
			t.Errorf("status: exit code %d", code)
		}
		return r.missing(byStatus, heard[byStatus])
	})
	if err := s.load.WaitEach(t.Context(), 1); err != nil {
		t.Error(err)
	}
	heard[byLog] = s.said()
	for _, where := range []string{byUpgrade, byStatus, byLog} {
		if missing := r.missing(where, heard[where]); missing != "" {
			t.Error(missing)
		}
	}
	end()

	s.settles()
	s.upgrade()
	s.upgrade() // with which the copy of the binary before is gone
	s.end()
	s.until(func() string {
		if n := s.files(); n > before {
			return fmt.Sprintf("the parent has %d descriptors, not %d", n, before)
		}
		return ""
	})
	s.stop()
}
