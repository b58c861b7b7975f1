//go:build unix

package configfile

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/handover-go/handover/workerset"
)

// This file reads and writes values that are several: arrays and tables in a file.

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
