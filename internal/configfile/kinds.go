//go:build unix

package configfile

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/handover-go/handover/workerset"
)

// kind is a kind of values: of flags, which are texts, and of the file, which have types.
type kind struct {
	name   string // of the flag's type
	wants  string // what is right in a file
	merges bool   // what is said elsewhere is added, it does not take the place
	// accept makes of a value of the file what the flag would have; false if its type is wrong.
	accept func(v any) ([]string, bool)
	// split does that with an environment variable.
	split func(s string) []string
	set   func(p any, values []string) error
	get   func(p any) any // for a file; nil: there is nothing to say
}

// Types of fields of which there is more to say than their type does.
type (
	environ  []string       // NAME=VALUE
	workers  int            // 0 is auto
	form     string         // of the log
	optional string         // "" is none
	request  syscall.Signal // that has to be sent
)

// kindOf is the kind of values of what p points to.
func kindOf(p any) *kind {
	switch p.(type) {
	case *string:
		return &text
	case *optional:
		return &optionals
	case *form:
		return &forms
	case *bool:
		return &boolean
	case *int:
		return &number
	case *workers:
		return &workerNumber
	case *time.Duration:
		return &duration
	case *unlessZero:
		return &unlessZeros
	case *upTo:
		return &upTos
	case *fraction:
		return &fractions
	case *memoryLimit:
		return &memoryLimits
	case *[]string:
		return &list
	case *environ:
		return &variables
	case *syscall.Signal:
		return &signal
	case *request:
		return &requestSignal
	case *workerset.Readiness:
		return &readiness
	case *workerset.NodeChannel:
		return &nodeChannel
	case *workerset.Offer:
		return &offer
	case **uint32:
		return &mask
	case *map[string]workerset.Limit:
		return &limits
	}
	panic(fmt.Sprintf("configfile: a key of type %T", p))
}

// badValue is what is wrong with one of several values.
type badValue struct{ value, why string }

func (e *badValue) Error() string { return e.why }

// set sets what p points to, of a group or of the service.
func (k *Key) set(p any, s said, group bool) Errors {
	kind := kindOf(p)
	if err := kind.set(p, s.values); err != nil {
		value := s.values[len(s.values)-1]
		var bad *badValue
		if errors.As(err, &bad) {
			value = bad.value
		}
		if kind == &readiness { // it says the value itself
			return Errors{{s.at, "", ": " + err.Error()}}
		}
		return Errors{{s.at, strconv.Quote(value), ": " + err.Error()}}
	}
	switch {
	case group && kind.zero(p):
		return Errors{{s.at, s.values[0], ": that can't be said of a group: leave it out, and it is as the service says"}}
	case !group && !k.zero && kind.zero(p):
		return Errors{{s.at, s.values[0], ": must not be 0"}}
	}
	return nil
}

// zero reports whether p points to what means the default, or in a group what the service says.
func (k *kind) zero(p any) bool {
	switch p := p.(type) {
	case *int:
		return *p == 0
	case *time.Duration:
		return *p == 0
	case *workerset.Readiness:
		return *p == workerset.Readiness{}
	}
	return false
}

func one(s string) []string { return []string{s} }

// texts are values that are strings in a file.
func texts(v any) ([]string, bool) {
	s, ok := v.(string)
	return one(s), ok && s != ""
}

// scalar is a kind of values that are one text, which parse reads and format writes.
func scalar[T any](name, wants string, parse func(string) (T, error), format func(T) any) kind {
	return kind{
		name: name, wants: wants, accept: texts, split: one,
		set: func(p any, values []string) error {
			v, err := parse(values[len(values)-1])
			if err == nil {
				*p.(*T) = v
			}
			return err
		},
		get: func(p any) any { return format(*p.(*T)) },
	}
}

// word is a kind of values of which there are few.
func word[T comparable](why string, names []string, values []T) kind {
	parse := func(s string) (v T, err error) {
		i := slices.Index(names, s)
		if i < 0 {
			return v, errors.New(why)
		}
		return values[i], nil
	}
	format := func(v T) any { return names[slices.Index(values, v)] }
	return scalar("string", `one of the strings "`+strings.Join(names, `", "`)+`"`, parse, format)
}

var (
	text          = scalar("string", "a string (that is not empty)", func(s string) (string, error) { return s, nil }, func(s string) any { return some(s) })
	optionals     = scalar("string", "a string (that is not empty)", parseOptional, formatOptional)
	forms         = word("text or json", []string{"text", "json"}, []form{"text", "json"})
	duration      = scalar("duration", `a time with its unit, as a string such as "10s",`, parseDuration, func(d time.Duration) any { return d.String() })
	signal        = scalar("string", `a string such as "TERM"`, parseSignal, formatSignal)
	requestSignal = scalar("string", `a string such as "TERM"`, parseRequest, func(r request) any { return formatSignal(syscall.Signal(r)) })
	readiness     = scalar("string", `a string such as "notify"`, workerset.ParseReadiness, func(r workerset.Readiness) any { return r.String() })
	mask          = scalar("string", `a string of octal digits such as "027"`, parseMask, formatMask)

	nodeChannel = word("auto, yes, no or cluster", []string{"auto", "yes", "no", "cluster"},
		[]workerset.NodeChannel{workerset.NodeAuto, workerset.NodeYes, workerset.NodeNo, workerset.NodeCluster})
	offer = word("none or message", []string{"none", "message"}, []workerset.Offer{workerset.OfferNone, workerset.OfferMessage})

	boolean      = withAccept(scalar("bool", "true or false", parseBool, func(b bool) any { return b }), accepts[bool])
	number       = withAccept(scalar("int", "a number", parseNumber, func(n int) any { return int64(n) }), accepts[int64])
	workerNumber = withAccept(scalar("string", `a number, or "auto",`, parseWorkers, formatWorkers), func(v any) ([]string, bool) {
		values, ok := accepts[int64](v)
		return values, ok || v == "auto"
	})
)

func withAccept(k kind, accept func(any) ([]string, bool)) kind {
	k.accept = accept
	return k
}

func accepts[T any](v any) ([]string, bool) {
	_, ok := v.(T)
	return one(fmt.Sprint(v)), ok
}
