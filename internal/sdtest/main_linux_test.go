package sdtest_test

import (
	"fmt"
	"os"
	"testing"

	"github.com/handover-go/handover/internal/sdtest"
)

func TestMain(m *testing.M) {
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
