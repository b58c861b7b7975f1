//go:build unix

package configfile

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file reads and writes values that are one text.

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
