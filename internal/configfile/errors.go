//go:build unix

package configfile

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/handover-go/handover"
	"github.com/handover-go/handover/workerset"
)

// place is where something was said.
type place struct {
	file string
	line int    // 0: not in the file
	name string // of the key, with that of its group; of the flag; of the variable
}

func (p place) String() string {
	switch {
	case p.line == 0:
		return p.name
	case p.name == "":
		return fmt.Sprintf("%s:%d", p.file, p.line)
	}
	return fmt.Sprintf("%s:%d: %s", p.file, p.line, p.name)
}

// Error is one fault.
type Error struct {
	at    place
	value string // that was given, in quotes, if it says more than the place
	why   string
}

// Line is where in the file it is, or 0.
func (e Error) Line() int { return e.at.line }

func (e Error) Error() string {
	where := e.at.String()
	if where == "" {
		return strings.TrimPrefix(e.why, ": ")
	}
	if e.value != "" {
		where += " "
	}
	return where + e.value + e.why
}

// Errors are all faults that were found.
type Errors []Error

func (l Errors) Error() string {
	lines := make([]string, len(l))
	for i, e := range l {
		lines[i] = e.Error()
	}
	return strings.Join(lines, "\n")
}

// sorted orders them by line; those of the same line, and of none, stay in order.
func (l Errors) sorted() Errors {
	slices.SortStableFunc(l, func(a, b Error) int { return cmp.Compare(a.at.line, b.at.line) })
	return l
}

// Explain says of an error of handover.Run, Config.Validate or Config.Check, where that
// stands which it is about. Other errors come back as they are.
func (r *Result) Explain(err error) error {
	if !errors.Is(err, handover.ErrConfig) && !errors.Is(err, workerset.ErrConfig) {
		return err
	}
	var list Errors
	for _, leaf := range leaves(err) {
		if e := r.locate(leaf); !slices.Contains(list, e) {
			list = append(list, e)
		}
	}
	return list.sorted()
}

// leaves are the parts of an error that was joined, and wrapped in what says only that a
// configuration is bad.
func leaves(err error) (all []error) {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{err}
	}
	parts := joined.Unwrap()
	if len(parts) == 2 && (parts[0] == handover.ErrConfig || parts[0] == workerset.ErrConfig) {
		return leaves(parts[1])
	}
	if err.Error() != errors.Join(parts...).Error() {
		return []error{err} // a text of its own
	}
	for _, e := range parts {
		all = append(all, leaves(e)...)
	}
	return all
}

// locate finds where it was said what an error is about.
func (r *Result) locate(err error) Error {
	var e *handover.FieldError
	if !errors.As(err, &e) {
		return Error{why: err.Error()}
	}
	why := ": " + e.Err.Error()
	k := fieldKey(e.Field)
	i := slices.IndexFunc(r.groups, func(s scope) bool { return s.group == e.Group })
	if k != nil && i >= 0 && r.groups[i].has(k.Name) {
		return Error{at: r.groups[i].said[k.Name].at, why: why}
	}
	if k != nil && r.service.has(k.Name) {
		return Error{at: r.service.said[k.Name].at, why: why}
	}
	if i >= 0 && r.groups[i].at.line > 0 {
		return Error{at: r.groups[i].at, why: why}
	}
	if len(r.groups) == 0 {
		return Error{why: e.Err.Error()}
	}
	return Error{why: e.Error()}
}
