package draintest

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// probe looks at the page as a reader does: with the keyboard and the mouse. What it
// has seen is left in the document.
const probe = `<script>
window.onerror = (message) => { document.body.dataset.error = message; };
window.addEventListener("load", () => setTimeout(() => {
	const legend = (chart) => [...chart.querySelectorAll(".u-value")].map((e) => e.textContent).join("|");
	const charts = document.querySelectorAll(".chart");
	charts[0].focus();
	document.body.dataset.focused = document.activeElement === charts[0];
	for (const key of ["Home", "ArrowRight"]) charts[0].dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true }));
	setTimeout(() => {
		document.body.dataset.keys = legend(charts[0]);
		const over = charts[1].querySelector(".u-over"), box = over.getBoundingClientRect();
		for (const type of ["mouseenter", "mousemove"]) {
			over.dispatchEvent(new MouseEvent(type, { clientX: box.left + box.width - 2, clientY: box.top + 5, bubbles: true }));
		}
		setTimeout(() => {
			document.body.dataset.hover = legend(charts[1]);
			const canvas = charts[1].querySelector("canvas"), data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
			document.body.dataset.ink = data.some((v) => v > 0);
			document.body.dataset.done = "yes";
		}, 200);
	}, 200);
}, 100));
</script>`

// TestPage opens a report in a real browser: it draws, hover and keyboard work, and there
// are no errors, in the light and in the dark.
func TestPage(t *testing.T) {
	browser, err := exec.LookPath("chromium")
	if err != nil {
		t.Skip("chromium is not installed (Debian: apt-get install chromium)")
	}
	r := good()
	r.Name = `./shop --name "</script><b>x</b>" & <co>`
	r.Timeline = append(r.Timeline, Point{At: 200 * time.Millisecond, Kind: load.New, OK: 4, P50: time.Millisecond, P99: 7 * time.Millisecond, Max: 9 * time.Millisecond})
	failing(r, load.Refused, 3)
	r.Findings = judge(r, nil)
	var b bytes.Buffer
	if err := r.WriteHTML(&b); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(b.String(), "<b>x</b>") {
		t.Error("a name is not escaped")
	}
	// Nothing is loaded from anywhere.
	if m := regexp.MustCompile(`(?i)(?:src|href)="?(?:https?:|//)[^"]*|@import[^;]*|url\([^)]*`).FindString(b.String()); m != "" {
		t.Errorf("the page asks for %s", m)
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "report.html")
	text := strings.Replace(b.String(), "<body>", "<body>"+probe, 1)
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, scheme := range []string{"light", "dark"} {
		cmd := exec.CommandContext(t.Context(), browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage",
			"--user-data-dir="+filepath.Join(dir, scheme), "--enable-logging=stderr", "--virtual-time-budget=5000", "--window-size=1200,2000",
			"--blink-settings=preferredColorScheme="+map[string]string{"dark": "0", "light": "1"}[scheme],
			"--dump-dom", "file://"+file)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Run(); err != nil {
			t.Fatalf("%v\n%s", err, errs.Bytes())
		}
		if m := regexp.MustCompile(`.*CONSOLE.*`).FindString(errs.String()); m != "" {
			t.Errorf("%s: the console says %s", scheme, m)
		}
		body := regexp.MustCompile(`<body[^>]*>`).FindString(out.String())
		for _, want := range []string{`data-done="yes"`, `data-charts="2"`, `data-focused="true"`, `data-ink="true"`,
			`data-keys="0.2 s|40 /s|0 /s"`, `data-hover="0.2 s|1 ms|7 ms|9 ms"`} {
			if !strings.Contains(body, want) {
				t.Errorf("%s: %s, want %s", scheme, body, want)
			}
		}
		if strings.Contains(body, "data-error") {
			t.Errorf("%s: %s", scheme, body)
		}
		for _, want := range []string{"✗ fail", "3 requests failed: refused", "Usual cause: nobody listened", `class="bar"`} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%s: the page does not say %q", scheme, want)
			}
		}
	}
}
