package draintest

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
)

// The elements of JUnit's XML that Jenkins and GitLab read.
type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name      string      `xml:"name,attr"`
		Tests     int         `xml:"tests,attr"`
		Failures  int         `xml:"failures,attr"`
		Errors    int         `xml:"errors,attr"`
		Time      string      `xml:"time,attr"`
		Timestamp string      `xml:"timestamp,attr"`
		Cases     []junitCase `xml:"testcase"`
		Output    junitText   `xml:"system-out"`
	}
	junitCase struct {
		Class   string    `xml:"classname,attr"`
		Name    string    `xml:"name,attr"`
		Time    string    `xml:"time,attr"`
		Failure *junitBad `xml:"failure"`
		Error   *junitBad `xml:"error"`
	}
	junitText struct {
		Text string `xml:",cdata"`
	}
	junitBad struct {
		Type    string `xml:"type,attr"`
		Message string `xml:"message,attr"`
		Text    string `xml:",cdata"`
	}
)

// WriteJUnit writes the report as JUnit's XML: a test case for each round, and one for the
// whole. A finding is a failure of its round's, or of the whole; Untested is an error.
func (r *Report) WriteJUnit(w io.Writer) error {
	suite := junitSuite{Name: "draintest " + r.Name, Time: seconds(r.Took.Seconds()),
		Timestamp: r.Began.UTC().Format("2006-01-02T15:04:05"), Output: junitText{r.String()}}
	for n := range len(r.Rounds) + 1 {
		c := junitCase{Class: "draintest", Name: "the whole test", Time: seconds(r.Took.Seconds())}
		if n > 0 {
			c.Name = fmt.Sprintf("round %d: %s", n, r.Action)
			c.Time = seconds(r.Rounds[n-1].lasted().Seconds())
		}
		var failed, untested []Finding
		for _, f := range r.Findings {
			switch {
			case f.Round != n:
			case f.Verdict == Fail:
				failed = append(failed, f)
			default:
				untested = append(untested, f)
			}
		}
		c.Failure, c.Error = bad(failed), bad(untested)
		suite.Tests++
		if c.Failure != nil {
			suite.Failures++
		} else if c.Error != nil {
			suite.Errors++
		}
		suite.Cases = append(suite.Cases, c)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(w)
	enc.Indent("", "  ")
	if err := enc.Encode(junitSuites{Suites: []junitSuite{suite}}); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// bad makes one of several findings.
func bad(found []Finding) *junitBad {
	if len(found) == 0 {
		return nil
	}
	var text strings.Builder
	for _, f := range found {
		fmt.Fprintln(&text, f.Text)
		if f.Cause != "" {
			fmt.Fprintln(&text, "usual cause:", f.Cause)
		}
	}
	return &junitBad{Type: found[0].Name, Message: found[0].Text, Text: text.String()}
}

func seconds(s float64) string { return fmt.Sprintf("%.3f", s) }
