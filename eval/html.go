package eval

import (
	"bytes"
	_ "embed"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"sort"
	"strconv"
)

//go:embed report.tmpl.html
var pageText string

var page = template.Must(template.New("report").Funcs(template.FuncMap{
	"pct":   func(f float64) string { return fmt.Sprintf("%.1f", 100*f) },
	"ms":    func(f float64) string { return fmt.Sprintf("%.0f", f) },
	"f1":    func(f float64) string { return fmt.Sprintf("%.1f", f) },
	"f2":    func(f float64) string { return fmt.Sprintf("%.2f", f) },
	"kl":    func(f float64) string { return fmt.Sprintf("%.4f", f) },
	"short": func(s string) string { return s[:min(12, len(s))] },
	"hue":   func(i int) int { return i % hues },
}).Parse(pageText))

// hues is how many colours the page has for groups.
const hues = 8

// pageData is what the page shows. Tokens goes to the script as JSON, which
// html/template escapes for it.
type pageData struct {
	*Report
	Groups []pageGroup
	Speed  *scatter
	KL     *scatter
	Tokens template.JS
	// Frontier is nil where none was measured.
	Frontier *frontierPlots
}

type pageGroup struct {
	Name string
	*Group
}

func (r *Report) html() ([]byte, error) {
	d := pageData{Report: r}
	hue := map[string]int{}
	for i, name := range r.Summary.Order {
		hue[name] = i % hues
		d.Groups = append(d.Groups, pageGroup{name, r.Summary.Groups[name]})
	}
	if len(r.Summary.Order) != 1 {
		d.Groups = append(d.Groups, pageGroup{everything, r.Summary.Groups[everything]})
	}
	d.Speed = newScatter(r.Pairs, hue, func(p *Result) (float64, float64) { return p.Similarity, p.Speedup }, .5, 100)
	d.KL = newScatter(r.Pairs, hue, func(p *Result) (float64, float64) { return p.Reused, p.KLMean }, leastKL, 1)
	d.Frontier = newFrontierPlots(r.Pairs)
	views := map[string]*tokenView{}
	for i := range r.Pairs {
		if v := r.Pairs[i].tokens; v != nil {
			views[r.Pairs[i].ID] = v
		}
	}
	// Marshal escapes <, > and &, so that no text can end the script element.
	b, err := json.Marshal(views)
	if err != nil {
		return nil, err
	}
	d.Tokens = template.JS(b)
	var out bytes.Buffer
	if err := page.Execute(&out, &d); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// leastKL is where the logarithmic axis of KL starts; less is drawn there.
const leastKL = 1e-5

// Size of a plot in SVG units, and the margins of its axes.
const (
	plotWidth, plotHeight = 460.0, 300.0
	plotLeft, plotBottom  = 58.0, 34.0
	plotTop, plotRight    = 10.0, 12.0
)

// scatter is a plot with a share, 0 to 1, across and a logarithm up.
type scatter struct {
	Width, Height            float64
	Left, Right, Top, Bottom float64
	Points                   []point
	XTicks, YTicks           []tick
}

type point struct {
	X, Y  float64
	Hue   int
	ID    string
	Title string
}

type tick struct {
	At    float64
	Label string
}

// newScatter draws the pairs measured; the axis reaches at least from low to
// high, whole powers of ten beyond.
func newScatter(results []Result, hue map[string]int, of func(*Result) (float64, float64), low, high float64) *scatter {
	s := &scatter{Width: plotWidth, Height: plotHeight, Left: plotLeft, Right: plotWidth - plotRight, Top: plotTop, Bottom: plotHeight - plotBottom}
	for i := range results {
		if _, y := of(&results[i]); results[i].Error == "" && y > high {
			high = math.Pow(10, math.Ceil(math.Log10(y)))
		}
	}
	span := math.Log10(high) - math.Log10(low)
	up := func(y float64) float64 {
		share := (math.Log10(min(max(y, low), high)) - math.Log10(low)) / span
		return s.Bottom - share*(s.Bottom-s.Top)
	}
	across := func(x float64) float64 { return s.Left + min(max(x, 0), 1)*(s.Right-s.Left) }
	for x := 0.0; x <= 1.001; x += .25 {
		s.XTicks = append(s.XTicks, tick{across(x), fmt.Sprintf("%.2g", x)})
	}
	for e := math.Ceil(math.Log10(low)); e <= math.Log10(high); e++ {
		s.YTicks = append(s.YTicks, tick{up(math.Pow(10, e)), strconv.FormatFloat(math.Pow(10, e), 'f', -1, 64)})
	}
	for i := range results {
		if r := &results[i]; r.Error == "" {
			x, y := of(r)
			s.Points = append(s.Points, point{across(x), up(y), hue[r.Group], r.ID, fmt.Sprintf("%s: %.3g, %.3g", r.ID, x, y)})
		}
	}
	sort.SliceStable(s.Points, func(a, b int) bool { return s.Points[a].X < s.Points[b].X })
	return s
}
