package main

import (
	"fmt"
	"image/color"
	"slices"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"

	"github.com/semsharekv/semsharekv/eval"
)

// figure is one SVG file.
type figure struct {
	file string
	svg  func([]run) ([]byte, error)
}

var figures = []figure{
	{"speedup.svg", speedup},
	{"quality.svg", quality},
	{"ways.svg", ways},
	{"time.svg", times},
}

const width, height = vg.Length(760), vg.Length(330)

// A figure with a named row for each pair is as high as its rows and what is around them.
const rowHeight, frameHeight = vg.Length(12), vg.Length(90)

// speedup is how much sooner the first token came against how similar the
// prompts were. Dissimilar pairs, which go cold, lie left of it.
func speedup(runs []run) ([]byte, error) {
	return scatter(runs, func(model string) *plot.Plot {
		p := newPlot(model+": times sooner", "similarity", "")
		p.X.Min, p.X.Max, p.X.Tick.Marker = 0.58, 1.01, ticks(0.6, 0.7, 0.8, 0.9, 1)
		scaleSpeedup(&p.Y)
		return p
	}, func(r *eval.Result) (x, y float64) { return r.Similarity, r.Speedup })
}

// scaleSpeedup has an axis show how many times sooner, wherever it is drawn.
func scaleSpeedup(a *plot.Axis) {
	a.Scale, a.Min, a.Max, a.Tick.Marker = plot.LogScale{}, 0.9, 150, ticks(1, 2, 5, 10, 20, 50, 100)
}

// quality is the divergence of the answers against the share recomputed.
func quality(runs []run) ([]byte, error) {
	return scatter(runs, func(model string) *plot.Plot {
		p := newPlot(model+": KL divergence, nats", "tokens recomputed, %", "")
		p.X.Scale, p.X.Min, p.X.Max, p.X.Tick.Marker = plot.LogScale{}, 0.2, 100, ticks(0.3, 1, 3, 10, 30, 100)
		p.Y.Scale, p.Y.Min, p.Y.Max, p.Y.Tick.Marker = plot.LogScale{}, 0.00005, 0.5, ticks(0.0001, 0.001, 0.01, 0.1)
		return p
	}, func(r *eval.Result) (x, y float64) { return 100 * r.Recomputed, r.KLMean })
}

// scatter has a panel a model and a mark for each shared pair.
func scatter(runs []run, empty func(model string) *plot.Plot, at func(*eval.Result) (x, y float64)) ([]byte, error) {
	var panels []*plot.Plot
	for _, model := range models(runs) {
		p := empty(model)
		p.Add(grid())
		for _, r := range runs {
			if r.model != model {
				continue
			}
			for _, g := range groups {
				if err := addMarks(p, r.shared(g.name), glyph(r.way, g.colour), at); err != nil {
					return nil, fmt.Errorf("%s, %s: %w", model, g.name, err)
				}
			}
		}
		panels = append(panels, p)
	}
	return page(width, height, panels, groupLegends())
}

func addMarks(p *plot.Plot, of []eval.Result, style draw.GlyphStyle, at func(*eval.Result) (x, y float64)) error {
	var xys plotter.XYs
	for i := range of {
		x, y := at(&of[i])
		if x < p.X.Min || x > p.X.Max || y < p.Y.Min || y > p.Y.Max {
			return fmt.Errorf("%s at %g, %g is outside of the figure: widen its axes", of[i].ID, x, y)
		}
		xys = append(xys, plotter.XY{X: x, Y: y})
	}
	if len(xys) == 0 {
		return nil
	}
	s, err := plotter.NewScatter(xys)
	if err != nil {
		return err
	}
	s.GlyphStyle = style
	p.Add(s)
	return nil
}

func grid() *plotter.Grid {
	g := plotter.NewGrid()
	g.Horizontal.Color, g.Vertical.Color = faint, faint
	return g
}

// ways has both ways of each pair that was measured in both on one line.
func ways(runs []run) ([]byte, error) {
	var panels []*plot.Plot
	rows := 0
	for i := 0; i+1 < len(runs); i += 2 {
		slot, agent := &runs[i], &runs[i+1]
		p := newPlot(slot.model, "times sooner", "")
		scaleSpeedup(&p.X)
		p.Add(grid())
		names, err := addPairs(p, slot, agent)
		if err != nil {
			return nil, err
		}
		p.Y.Min, p.Y.Max = -0.6, float64(len(names))-0.4
		p.Y.Tick.Marker = names
		panels = append(panels, p)
		rows = max(rows, len(names))
	}
	return page(width, frameHeight+vg.Length(rows)*rowHeight, panels, groupLegends())
}

// addPairs draws a line for each pair and returns the names beside the lines.
func addPairs(p *plot.Plot, slot, agent *run) (names plot.ConstantTicks, err error) {
	for _, g := range slices.Backward(groups) {
		for _, a := range slices.Backward(agent.pairs) {
			s := slot.pair(a.ID)
			if a.Group != g.name || s == nil || a.Error != "" {
				continue
			}
			y := float64(len(names))
			names = append(names, plot.Tick{Value: y, Label: a.ID})
			line, err := plotter.NewLine(plotter.XYs{{X: s.Speedup, Y: y}, {X: a.Speedup, Y: y}})
			if err != nil {
				return nil, err
			}
			line.Color, line.Width = g.colour, vg.Points(1.5)
			p.Add(line)
			at := func(r *eval.Result) (float64, float64) { return r.Speedup, y }
			p.Y.Min, p.Y.Max = 0, y
			if err := addMarks(p, []eval.Result{*s}, glyph(eval.SlotWay, g.colour), at); err != nil {
				return nil, err
			}
			if err := addMarks(p, []eval.Result{a}, glyph(eval.AgentWay, g.colour), at); err != nil {
				return nil, err
			}
		}
	}
	return names, nil
}

// part is a stretch of the time of a shared request.
type part struct {
	name   string
	colour color.Color
	of     func(*eval.Result) float64 // ms
}

var parts = []part{
	{"tokens, look-up, alignment", color.RGBA{0xd9, 0x8c, 0x21, 0xff}, func(r *eval.Result) float64 { return r.Match }},
	{"composing", color.RGBA{0x2a, 0xa1, 0x98, 0xff}, func(r *eval.Result) float64 { return r.Compose }},
	{"restoring and recomputing", color.RGBA{0x4c, 0x8d, 0xd6, 0xff}, func(r *eval.Result) float64 { return r.Inject }},
	{"the forwarded request", color.RGBA{0xc2, 0x56, 0x9e, 0xff},
		func(r *eval.Result) float64 { return r.TTFTShared - r.Match - r.Compose - r.Inject }},
}

// times is what the time to the first token of shared requests is made of.
func times(runs []run) ([]byte, error) {
	var panels []*plot.Plot
	for i := range runs {
		if runs[i].model != "Qwen2.5-Coder-0.5B" {
			continue
		}
		p := newPlot(runs[i].model+", "+runs[i].way+" way", "share of the time to the first token, %", "")
		if err := addTimes(p, &runs[i]); err != nil {
			return nil, err
		}
		p.X.Min, p.X.Max = 0, 100
		panels = append(panels, p)
	}
	var legends []plot.Legend
	for _, part := range parts {
		l := newLegend()
		l.Add(part.name, patch{part.colour})
		legends = append(legends, l)
	}
	return page(width, height*0.8, panels, legends)
}

// addTimes stacks the parts, a bar a group, with the mean time beside its name.
func addTimes(p *plot.Plot, r *run) error {
	var names []string
	var shares = make([]plotter.Values, len(parts))
	for _, g := range slices.Backward(groups) {
		of := r.shared(g.name)
		if len(of) == 0 {
			continue
		}
		whole := 0.0
		sums := make([]float64, len(parts))
		for i := range of {
			whole += of[i].TTFTShared
			for k := range parts {
				sums[k] += max(0, parts[k].of(&of[i]))
			}
		}
		for k := range parts {
			shares[k] = append(shares[k], 100*sums[k]/whole)
		}
		names = append(names, fmt.Sprintf("%s, %.1f s", g.name, whole/float64(len(of))/1000))
	}
	var below *plotter.BarChart
	for k, part := range parts {
		bar, err := plotter.NewBarChart(shares[k], vg.Points(16))
		if err != nil {
			return err
		}
		bar.Horizontal, bar.Color, bar.LineStyle.Width = true, part.colour, 0
		if below != nil {
			bar.StackOn(below)
		}
		below = bar
		p.Add(bar)
	}
	p.NominalY(names...)
	return nil
}
