package main

import (
	"bytes"
	"image/color"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"

	"github.com/semsharekv/semsharekv/eval"
)

// ink has a contrast of about 4 on white and on black alike.
var ink = color.RGBA{0x7a, 0x82, 0x8e, 0xff}

// faint is ink for lines that only guide the eye.
var faint = color.NRGBA{0x7a, 0x82, 0x8e, 0x50}

// group is a group of eval/pairs as it is drawn.
type group struct {
	name   string
	colour color.Color
}

var groups = []group{
	{"number", color.RGBA{0x4c, 0x8d, 0xd6, 0xff}},
	{"template", color.RGBA{0x2a, 0xa1, 0x98, 0xff}},
	{"edited", color.RGBA{0xd9, 0x8c, 0x21, 0xff}},
	{"reordered", color.RGBA{0xc2, 0x56, 0x9e, 0xff}},
	{"sought", color.RGBA{0xe3, 0x8f, 0xc4, 0xff}},
	{"opinion", color.RGBA{0x7a, 0x2f, 0x60, 0xff}},
	{"retrieved", color.RGBA{0x8e, 0x72, 0xd6, 0xff}},
	{"releases", color.RGBA{0x6a, 0xa8, 0x4f, 0xff}},
	{"synonyms", color.RGBA{0xd9, 0x53, 0x4f, 0xff}},
}

const (
	textSize  = vg.Length(11)
	titleSize = vg.Length(12)
	dotSize   = vg.Length(3.5)
)

// glyph is a way's mark: slot a ring, agent a triangle.
func glyph(way string, c color.Color) draw.GlyphStyle {
	if way == eval.AgentWay {
		return draw.GlyphStyle{Color: c, Radius: dotSize + 0.5, Shape: draw.TriangleGlyph{}}
	}
	return draw.GlyphStyle{Color: c, Radius: dotSize, Shape: draw.CircleGlyph{}}
}

// newPlot is an empty plot in the house style.
func newPlot(title, x, y string) *plot.Plot {
	p := plot.New()
	p.BackgroundColor = nil // the page shows through
	p.Title.Text = title
	style(&p.Title.TextStyle.Color, &p.Title.TextStyle.Font, titleSize)
	p.Title.Padding = vg.Points(6)
	for _, a := range []*plot.Axis{&p.X, &p.Y} {
		style(&a.Label.TextStyle.Color, &a.Label.TextStyle.Font, textSize)
		style(&a.Tick.Label.Color, &a.Tick.Label.Font, textSize)
		a.Color, a.Tick.Color = ink, ink
		a.LineStyle.Color, a.Tick.LineStyle.Color = ink, ink
	}
	p.X.Label.Text, p.Y.Label.Text = x, y
	return p
}

func style(c *color.Color, f *font.Font, size vg.Length) {
	*c = ink
	f.Typeface, f.Variant, f.Size = "Liberation", "Sans", size
}

// ticks are labelled with their values.
func ticks(values ...float64) plot.ConstantTicks {
	var out plot.ConstantTicks
	for _, v := range values {
		out = append(out, plot.Tick{Value: v, Label: strconv.FormatFloat(v, 'f', -1, 64)})
	}
	return out
}

// legend is drawn under the panels.
func newLegend() plot.Legend {
	l := plot.NewLegend()
	style(&l.TextStyle.Color, &l.TextStyle.Font, textSize)
	l.Top, l.Left = true, true
	l.ThumbnailWidth = vg.Points(12)
	return l
}

const (
	legendRow = vg.Length(16)
	margin    = vg.Length(8)
)

// page draws panels side by side and the legends in columns under them.
func page(width, height vg.Length, panels []*plot.Plot, legends []plot.Legend) ([]byte, error) {
	c := vgsvg.New(width, height)
	whole := draw.New(c)
	over, under := whole, whole
	if len(legends) > 0 {
		over = draw.Crop(whole, 0, 0, legendRow*1.5, 0)
		under = draw.Crop(whole, 0, 0, 0, legendRow*1.2-height)
	}
	tiles := draw.Tiles{Rows: 1, Cols: len(panels), PadX: vg.Points(14), PadLeft: margin, PadRight: margin, PadTop: vg.Points(4)}
	canvases := plot.Align([][]*plot.Plot{panels}, tiles, over)
	for i, p := range panels {
		p.Draw(canvases[0][i])
	}
	column := (width - margin) / vg.Length(max(1, len(legends)))
	for i := range legends {
		at := margin + vg.Length(i)*column
		legends[i].Draw(draw.Crop(under, at, at+column-width, 0, 0))
	}
	var b bytes.Buffer
	if _, err := c.WriteTo(&b); err != nil {
		return nil, err
	}
	return tidy(b.Bytes()), nil
}

// tidy gives viewers without the font another one without serifs.
func tidy(svg []byte) []byte {
	return bytes.ReplaceAll(svg, []byte("font-family:Liberation Sans"), []byte("font-family:Liberation Sans,Arial,Helvetica,sans-serif"))
}

// dot is a legend's picture of a glyph.
type dot struct{ draw.GlyphStyle }

// Thumbnail draws the glyph in the middle.
func (d dot) Thumbnail(c *draw.Canvas) { c.DrawGlyph(d.GlyphStyle, c.Center()) }

// patch is a legend's picture of an area.
type patch struct{ colour color.Color }

// Thumbnail fills most of the canvas.
func (p patch) Thumbnail(c *draw.Canvas) {
	r := c.Rectangle
	c.FillPolygon(p.colour, []vg.Point{r.Min, {X: r.Max.X, Y: r.Min.Y}, r.Max, {X: r.Min.X, Y: r.Max.Y}})
}

// groupLegends has one legend a group and one for each way.
func groupLegends() []plot.Legend {
	var out []plot.Legend
	for _, g := range groups {
		l := newLegend()
		l.Add(g.name, patch{g.colour})
		out = append(out, l)
	}
	for _, way := range []string{eval.SlotWay, eval.AgentWay} {
		l := newLegend()
		l.Add(way+" way", dot{glyph(way, ink)})
		out = append(out, l)
	}
	return out
}
