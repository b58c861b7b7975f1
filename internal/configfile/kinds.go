//go:build unix

package configfile

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

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

// some is s, or nil if there is nothing to say.
func some(s string) any {
	if s == "" {
		return nil
	}
	return s
}

func parseOptional(s string) (optional, error) {
	if s == "none" {
		s = ""
	}
	return optional(s), nil
}

func formatOptional(o optional) any {
	if o == "" {
		return "none"
	}
	return string(o)
}

func parseDuration(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if err != nil {
		return 0, errors.New("a time is needed, such as 10s, 500ms or 1m30s")
	}
	return d, nil
}

// parseBool reads two words only: a number would be a pid, or a descriptor, of an anchor or a
// worker.
func parseBool(s string) (bool, error) {
	if s != "true" && s != "false" {
		return false, errors.New("true or false")
	}
	return s == "true", nil
}

func parseNumber(s string) (int, error) {
	n, err := strconv.Atoi(s)
	if err != nil {
		return 0, errors.New("a number is needed")
	}
	return n, nil
}

func parseWorkers(s string) (workers, error) {
	if s == "auto" {
		return 0, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 1 {
		return 0, errors.New("a number from 1, or auto")
	}
	return workers(n), nil
}

func formatWorkers(n workers) any {
	if n == 0 {
		return "auto"
	}
	return int64(n)
}

var errNoSignal = errors.New("a signal such as TERM, USR1 or 15 is needed")

// parseSignal reads TERM, SIGTERM or 15; none is 0.
func parseSignal(s string) (syscall.Signal, error) {
	if s == "none" {
		return 0, nil
	}
	if n, err := strconv.Atoi(s); err == nil && n > 0 && n <= 64 {
		return syscall.Signal(n), nil
	}
	if sig := unix.SignalNum("SIG" + strings.TrimPrefix(strings.ToUpper(s), "SIG")); sig != 0 {
		return sig, nil
	}
	return 0, errNoSignal
}

func parseRequest(s string) (request, error) {
	sig, err := parseSignal(s)
	if err == nil && sig == 0 {
		err = errNoSignal
	}
	return request(sig), err
}

func formatSignal(sig syscall.Signal) any {
	if sig == 0 {
		return "none"
	}
	if name := unix.SignalName(sig); name != "" {
		return strings.TrimPrefix(name, "SIG")
	}
	return strconv.Itoa(int(sig))
}

func parseMask(s string) (*uint32, error) {
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 {
		return nil, errors.New("an octal number up to 777")
	}
	mask := uint32(n)
	return &mask, nil
}

func formatMask(m *uint32) any {
	if m == nil {
		return nil
	}
	return fmt.Sprintf("%03o", *m)
}

// list is texts, one after the other.
var list = kind{
	name: "stringArray", wants: "an array of strings",
	accept: func(v any) ([]string, bool) {
		items, ok := v.([]any)
		values := make([]string, len(items))
		for i, item := range items {
			s, is := item.(string)
			values[i], ok = s, ok && is
		}
		return values, ok
	},
	split: strings.Fields,
	set:   func(p any, values []string) error { *p.(*[]string) = values; return nil },
	get: func(p any) any {
		if l := *p.(*[]string); l != nil {
			return l
		}
		return nil
	},
}

// variables are a table in a file, and NAME=VALUE elsewhere; in an environment variable one in
// a line, since there may be spaces in a value.
var variables = kind{
	name: "stringArray", wants: "a table of strings", merges: true,
	accept: func(v any) ([]string, bool) {
		return pairs(v, func(v any) (string, bool) { s, ok := v.(string); return s, ok })
	},
	split: func(s string) (all []string) {
		for line := range strings.Lines(s) {
			if line = strings.TrimSpace(line); line != "" {
				all = append(all, line)
			}
		}
		return all
	},
	set: func(p any, values []string) error {
		last := map[string]string{}
		for _, kv := range values {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" {
				return &badValue{kv, "write it as NAME=VALUE"}
			}
			last[name] = kv
		}
		*p.(*environ) = slices.Sorted(maps.Values(last))
		return nil
	},
	get: func(p any) any {
		m := map[string]any{}
		for _, kv := range *p.(*environ) {
			name, value, _ := strings.Cut(kv, "=")
			m[name] = value
		}
		return table(m)
	},
}

// limits are a table, too.
var limits = kind{
	name: "stringArray", wants: `a table of numbers and of strings such as "1024:65536" and "unlimited"`, merges: true,
	accept: func(v any) ([]string, bool) {
		return pairs(v, func(v any) (string, bool) {
			switch v.(type) {
			case string, int64:
				return fmt.Sprint(v), true
			}
			return "", false
		})
	},
	split: strings.Fields,
	set: func(p any, values []string) (err error) {
		*p.(*map[string]workerset.Limit), err = parseLimits(values)
		return err
	},
	get: func(p any) any {
		m := map[string]any{}
		for name, l := range *p.(*map[string]workerset.Limit) {
			m[name] = formatLimit(l)
		}
		return table(m)
	},
}

// table is m, or nil if it is empty.
func table(m map[string]any) any {
	if len(m) == 0 {
		return nil
	}
	return m
}

// pairs makes NAME=VALUE of a table.
func pairs(v any, value func(any) (string, bool)) (list []string, ok bool) {
	m, ok := v.(map[string]any)
	list = []string{}
	for _, name := range slices.Sorted(maps.Keys(m)) {
		s, is := value(m[name])
		list, ok = append(list, name+"="+s), ok && is
	}
	return list, ok
}

// parseLimits reads NAME=SOFT[:HARD].
func parseLimits(list []string) (map[string]workerset.Limit, error) {
	if len(list) == 0 {
		return nil, nil
	}
	limits := map[string]workerset.Limit{}
	number := func(s string) (uint64, error) {
		if s == "unlimited" || s == "infinity" {
			return workerset.Unlimited, nil
		}
		return strconv.ParseUint(s, 10, 63)
	}
	for _, s := range list {
		name, value, _ := strings.Cut(s, "=")
		soft, hard, two := strings.Cut(value, ":")
		if !two {
			hard = soft
		}
		var l workerset.Limit
		var err, herr error
		l.Soft, err = number(soft)
		l.Hard, herr = number(hard)
		if name == "" || err != nil || herr != nil {
			return nil, &badValue{s, "write it as NAME=SOFT or NAME=SOFT:HARD, numbers or unlimited, for example nofile=65536"}
		}
		limits[name] = l
	}
	return limits, nil
}

func formatLimit(l workerset.Limit) any {
	number := func(n uint64) string {
		if n == workerset.Unlimited {
			return "unlimited"
		}
		return strconv.FormatUint(n, 10)
	}
	if l.Soft != l.Hard {
		return number(l.Soft) + ":" + number(l.Hard)
	}
	if l.Soft == workerset.Unlimited {
		return "unlimited"
	}
	return int64(l.Soft)
}
