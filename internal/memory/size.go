// Package memory is about amounts of memory: how they are written, and how much of it a
// process has.
package memory

import (
	"errors"
	"math"
	"regexp"
	"strconv"
	"strings"
	"sync"
)

// units are in the order of their powers of 1024.
const units = "KMGT"

// sizeForm is a number and a unit. It is compiled when it is needed: the anchor does not.
var sizeForm = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`^([0-9]+|[0-9]*\.[0-9]+)(?:([KMGTkmgt])(?:[iI][bB])?)?$`)
})

// Errors of ParseSize.
var (
	errSize     = errors.New("a number of bytes, or one with K, M, G or T behind it, such as 512M, is needed")
	errTooLarge = errors.New("more than there can be")
)

// ParseSize reads a number of bytes: digits, and K, M, G or T for powers of 1024, also as
// KiB and so on, in any case. Before a unit there may be a fraction; what is left of a byte
// is dropped.
func ParseSize(s string) (int64, error) {
	m := sizeForm().FindStringSubmatch(s)
	if m == nil || m[2] == "" && strings.Contains(m[1], ".") {
		return 0, errSize
	}
	shift := 0
	if m[2] != "" {
		shift = 10 * (1 + strings.Index(units, strings.ToUpper(m[2])))
	}
	if n, err := strconv.ParseInt(m[1], 10, 64); err == nil && n <= math.MaxInt64>>shift {
		return n << shift, nil
	}
	f, err := strconv.ParseFloat(m[1], 64)
	if f *= float64(int64(1) << shift); err != nil || f >= math.MaxInt64 {
		return 0, errTooLarge
	}
	return int64(f), nil
}

// FormatSize writes a number of bytes for people, with one digit after the point if it is
// not 0: "512 MiB", "1.5 GiB".
func FormatSize(n int64) string {
	unit, f := "bytes", float64(n)
	for i := 0; i < len(units) && f >= 1024; i++ {
		unit, f = units[i:i+1]+"iB", f/1024
	}
	return strings.TrimSuffix(strconv.FormatFloat(f, 'f', 1, 64), ".0") + " " + unit
}
