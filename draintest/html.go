package draintest

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"sync"
	"time"

	"github.com/handover-go/handover/draintest/load"
)

// What the HTML report is made of. uPlot draws the charts (html/uPlot.LICENSE).
var (
	//go:embed html/report.html
	pageText string
	//go:embed html/report.css
	pageCSS string
	//go:embed html/report.js
	pageJS string
	//go:embed html/uPlot.min.css
	uPlotCSS string
	//go:embed html/uPlot.iife.min.js
	uPlotJS string
)

// page is parsed when it is needed: most programs that link this package do not.
var page = sync.OnceValue(func() *template.Template {
	return template.Must(template.New("report").Funcs(template.FuncMap{"ms": ms, "number": number}).Parse(pageText))
})

// maxListed is how many failures are listed in the HTML report; the charts have all.
const maxListed = 200

// pageData is what the page shows.
type pageData struct {
	*Report
	CSS, UPlotCSS template.CSS
	JS, UPlot     template.JS
}

func (p pageData) Symbol() string { return [...]string{"✓", "✗", "?"}[p.Verdict()] }

func (p pageData) Seconds() string { return fmt.Sprintf("%.1f", p.Took.Seconds()) }

func (p pageData) FirstFailures() []load.Failure { return p.Failures[:min(len(p.Failures), maxListed)] }

func (p pageData) At(t time.Time) string { return fmt.Sprintf("%.3f", t.Sub(p.Began).Seconds()) }

func (p pageData) Round(t time.Time) int { return p.round(t) }

// WriteHTML writes the report as one page of HTML that needs nothing else: for people, on a
// screen or on paper.
func (r *Report) WriteHTML(w io.Writer) error {
	// A script ends at the first of these, wherever it stands.
	for _, js := range []string{pageJS, uPlotJS} {
		if strings.Contains(strings.ToLower(js), "</script") {
			return fmt.Errorf("draintest: a script of the page would end too early")
		}
	}
	return page().Execute(w, pageData{r, template.CSS(pageCSS), template.CSS(uPlotCSS), template.JS(pageJS), template.JS(uPlotJS)})
}
