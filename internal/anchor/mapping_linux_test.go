package anchor

import "testing"

// FuzzMapping: what the anchor gives back to the kernel is a file's, and can't be written to.
func FuzzMapping(f *testing.F) {
	for _, seed := range []string{
		"00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon", "7f00-7f01 rw-p 0 0:0 1 /lib", "1-2 r 0 0:0 1 /x", "1-2 r-xp 0 0 1 [heap]", "-- r--p 0 0 0 /",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, line []byte) { _ = parseMapping(line) })
}

func TestMapping(t *testing.T) {
	for line, want := range map[string]mapping{
		"00400000-00452000 r-xp 00000000 08:02 173521      /usr/bin/dbus-daemon": {0x400000, 0x452000},
		"00400000-00452000 rw-p 00000000 08:02 173521      /usr/bin/dbus-daemon": {},
		"00400000-00452000 ---p 00000000 08:02 173521      /usr/bin/dbus-daemon": {},
		"00400000-00452000 r-xp 00000000 00:00 0           [vdso]":               {},
		"00400000-00452000 r-xp 00000000 00:00 0":                                {},
		"x-y r-xp 00000000 08:02 173521 /usr/bin/dbus-daemon":                    {},
	} {
		if got := parseMapping([]byte(line)); got != want {
			t.Errorf("%q: %x", line, got)
		}
	}
}
