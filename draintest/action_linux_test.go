package draintest_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestActionScript runs the script of the GitHub action as a runner does.
func TestActionScript(t *testing.T) {
	script, err := filepath.Abs("action/run.sh")
	if err != nil {
		t.Fatal(err)
	}
	for name, tc := range map[string]struct {
		args    string
		code    int
		summary string
		files   bool
	}{
		"passes": {`--socket "$PWD/a socket" --quiet --rounds 1 --every 100ms --max-behind 1m -- "$HANDOVER" run --control none --listen "http=unix://$PWD/a socket"`,
			0, "### draintest: PASS\n\n```\nPASS: ", true},
		"fails": {`--socket "$PWD/s" --quiet --rounds 1 --settle 300ms --max-behind 1m --signal WINCH -- "$HANDOVER" run --control none --listen "http=unix://$PWD/s"`,
			1, "### draintest: FAIL\n\n```\nFAIL: ", true},
		"can't": {`-- /no/such/program`, 2, "### draintest: could not test\n", false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			handover := filepath.Join(dir, "handover")
			if out, err := exec.Command("go", "build", "-C", "..", "-o", handover, "./cmd/handover").CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			cmd := exec.Command(script)
			cmd.Dir = dir
			summary := filepath.Join(dir, "summary")
			cmd.Env = append(os.Environ(), "PWD="+dir, "HANDOVER="+handover, "GITHUB_STEP_SUMMARY="+summary, "DRAINTEST_ARGS="+tc.args)
			out, err := cmd.CombinedOutput()
			if cmd.ProcessState == nil {
				t.Fatal(err)
			}
			if code := cmd.ProcessState.ExitCode(); code != tc.code {
				t.Errorf("exit code %d, not %d\n%s", code, tc.code, out)
			}
			if b, err := os.ReadFile(summary); err != nil || !strings.HasPrefix(string(b), tc.summary) {
				t.Errorf("summary %q, %v", b, err)
			}
			for _, file := range []string{"draintest.xml", "draintest.json"} {
				b, err := os.ReadFile(filepath.Join(dir, file))
				if tc.files && (err != nil || len(b) == 0) {
					t.Errorf("%s: %q, %v", file, b, err)
				}
			}
		})
	}
}
