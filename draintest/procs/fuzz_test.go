package procs

import (
	"bytes"
	"strings"
	"testing"
)

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("17 (a b) c) S 1 17 17 0 -1\n"))
	f.Add([]byte("17 (x) Z"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, line []byte) {
		p, err := parseStat(line)
		if err == nil && !bytes.Contains(line, []byte("("+p.Comm+")")) {
			t.Errorf("%q: %v", line, p)
		}
	})
}

func FuzzParseTCP(f *testing.F) {
	f.Add("   0: 0100007F:1F90 0200007F:9C42 01 00000000:00000000 00:00000000 00000000     0        0 4711 1 0 20 4 30 10 -1")
	f.Add("   0: 0000000000000000FFFF00000100007F:1F90 0000000000000000FFFF00000100007F:9C42 01 0:0 0:0 0 0 0 4711")
	f.Add("0: : : 01 0 0 0 0 0 0")
	f.Fuzz(func(t *testing.T, line string) {
		s, err := parseTCP(line)
		if err == nil && (!s.remote.IsValid() || s.remote.Addr().Is4In6() || !strings.Contains(line, s.inode)) {
			t.Errorf("%q: %+v", line, s)
		}
	})
}

func FuzzParsePSS(f *testing.F) {
	f.Add([]byte("55d-7ff ---p 00000000 00:00 0 [rollup]\nRss:   1234 kB\nPss:    567 kB\nPss_Dirty: 1 kB\n"))
	f.Add([]byte("Pss: -1 kB\n"))
	f.Add([]byte("Pss:\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		n, err := parsePSS(text)
		if err == nil && (n < 0 || n%1024 != 0 || !bytes.Contains(text, []byte("Pss:"))) {
			t.Errorf("%q: %d", text, n)
		}
	})
}
