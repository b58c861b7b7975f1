package unit

import (
	"fmt"
	"strings"
)

// Escape keeps systemd from taking a % in a value for a specifier (systemd.unit(5)).
func Escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// Word is one word of a list, whatever is in it (systemd.syntax(7), "Quoting").
func Word(s string) string {
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return Escape(s)
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return Escape(b.String())
}

// plain reports whether a character means nothing in particular.
func plain(r rune) bool {
	return r > 0x7f || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || strings.ContainsRune("/=:.,_-+@%[]", r)
}

// Command is a command line, in which variables mean nothing either (systemd.service(5),
// "Command lines").
func Command(words []string) string {
	list := make([]string, len(words))
	for i, w := range words {
		list[i] = Word(w)
		if i > 0 { // the program's path is not looked at for variables
			list[i] = strings.ReplaceAll(list[i], "$", "$$")
		}
	}
	return strings.Join(list, " ")
}
