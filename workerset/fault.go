package workerset

import (
	"errors"
	"fmt"
)

// FieldError says which field of a configuration can't work. There may be several in an
// error of Validate (errors.Join).
type FieldError struct {
	Group string // name of the group; "" if it is not about one
	Field string // its name in Group, Program or Config, such as "DrainTimeout"
	Err   error
}

func (e *FieldError) Error() string {
	if e.Group != "" {
		return fmt.Sprintf("group %q: %v", e.Group, e.Err)
	}
	return e.Err.Error()
}

func (e *FieldError) Unwrap() error { return e.Err }

// faults collects what is wrong with a group.
type faults struct {
	group string
	all   []error
}

// add says what is wrong with a field.
func (f *faults) add(field, format string, args ...any) {
	f.check(field, fmt.Errorf(format, args...))
}

// check adds an error about a field, if it is one.
func (f *faults) check(field string, err error) {
	if err != nil {
		f.all = append(f.all, &FieldError{f.group, field, err})
	}
}

func (f *faults) err() error { return errors.Join(f.all...) }
