package handover_test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestUpgradesAcrossVersions: from a parent of the first version to today's and back,
// and no client notices.
func TestUpgradesAcrossVersions(t *testing.T) {
	file := filepath.Join(t.TempDir(), "former")
	former := func(is bool) {
		t.Helper()
		err := os.RemoveAll(file)
		if is {
			err = os.WriteFile(file, nil, 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	former(true)
	s := startService(t, 2, "TEST_FORMER="+file)
	l := s.load(40)
	for i, is := range []bool{false, true, true, false, false, true, false} {
		// A worker is being replaced meanwhile.
		resp, err := http.Get("http://" + s.addr + "/fail")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		former(is)
		s.upgrade()
		answered(t, l, fmt.Sprintf("generation=%d", i+2))
	}
	check(t, l)
	if n := len(s.workers()); n != 2 {
		t.Errorf("%d workers, not 2", n)
	}
	s.stop()
	for _, line := range strings.Split(s.tail(1<<20), "\n") {
		for _, bad := range []string{"garbage", "can't be", "could not be", "belongs to nothing"} {
			if strings.Contains(line, bad) {
				t.Error(line)
			}
		}
	}
}
