package sdtest_test

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
)

func TestMain(m *testing.M) {
	flag.Parse()
	// Every systemd at the same time: the tests wait most of the time.
	if err := flag.Set("test.parallel", "8"); err != nil {
		panic(err)
	}
	code := m.Run()
	if err := sdtest.Stop(); err != nil {
		fmt.Fprintln(os.Stderr, "left behind:", err)
		code = max(code, 1)
	}
	if left := leftBy(os.Getpid()); len(left) > 0 {
		fmt.Fprintln(os.Stderr, "left behind:", left)
		code = max(code, 1)
	}
	os.Exit(code)
}
