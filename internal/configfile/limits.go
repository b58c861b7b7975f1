//go:build unix

package configfile

import (
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/handover-go/handover/internal/memory"
	"github.com/handover-go/handover/workerset"
)

// In a handover.Config 0 is a default, and a negative number is none; for a person 0 is none.
type (
	unlessZero time.Duration
	upTo       int
	fraction   float64
)

// memoryLimit is the part of a Recycle that is about memory.
type memoryLimit workerset.Recycle

var (
	unlessZeros = scalar("duration", `a time with its unit, as a string such as "10s",`, parseUnlessZero,
		func(d unlessZero) any { return time.Duration(max(0, d)).String() })
	upTos     = withAccept(scalar("int", "a number", parseUpTo, func(n upTo) any { return int64(max(0, n)) }), accepts[int64])
	fractions = withAccept(scalar("float", "a number below 1", parseFraction, func(f fraction) any { return float64(max(0, f)) }), func(v any) ([]string, bool) {
		if values, ok := accepts[int64](v); ok {
			return values, ok
		}
		return accepts[float64](v)
	})
	memoryLimits = kind{
		name: "string", wants: `a string such as "512M"`, accept: texts, split: one,
		set: func(p any, values []string) error {
			r, err := parseMemory(values[len(values)-1])
			if err == nil {
				p.(*memoryLimit).MaxMemory, p.(*memoryLimit).PSS = r.MaxMemory, r.PSS
			}
			return err
		},
		get: func(p any) any { return formatMemory(*p.(*memoryLimit)) },
	}
)

func parseUnlessZero(s string) (unlessZero, error) {
	d, err := parseDuration(s)
	switch {
	case err != nil:
		return 0, err
	case d < 0:
		return 0, errors.New("must not be negative")
	case d == 0:
		return -1, nil
	}
	return unlessZero(d), nil
}

func parseUpTo(s string) (upTo, error) {
	n, err := parseNumber(s)
	switch {
	case err != nil:
		return 0, err
	case n < 0:
		return 0, errors.New("must not be negative")
	case n == 0:
		return -1, nil
	}
	return upTo(n), nil
}

func parseFraction(s string) (fraction, error) {
	f, err := strconv.ParseFloat(s, 64)
	switch {
	case err != nil || !(f < 1):
		return 0, errors.New("a fraction below 1 is needed, such as 0.1")
	case f < 0:
		return 0, errors.New("must not be negative")
	case f == 0:
		return -1, nil
	}
	return fraction(f), nil
}

func parseMemory(s string) (m memoryLimit, err error) {
	if s == "none" {
		return m, nil
	}
	size, pss := strings.CutPrefix(s, "pss:")
	m.PSS = pss
	if m.MaxMemory, err = memory.ParseSize(size); err == nil && m.MaxMemory == 0 {
		err = errors.New("no process needs nothing")
	}
	return m, err
}

func formatMemory(m memoryLimit) any {
	if m.MaxMemory == 0 {
		return nil
	}
	s := strconv.FormatInt(m.MaxMemory, 10)
	if m.PSS {
		s = "pss:" + s
	}
	return s
}
