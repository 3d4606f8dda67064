package bridge

import (
	"errors"
	"fmt"
	"io"
	"strings"
)

// Inspect prints the content of the state file at path, and whether it can be shared
// or why not, which also depends on the model (modelPath, "" if it is not known). If
// the file is no valid state it says so; the error, which wraps ErrCorrupt or
// ErrUnsupported, has the reason. It prints no text of the prompt, and nothing if the
// file cannot be read at all.
func Inspect(w io.Writer, path, modelPath string) error {
	p := &lines{w: w}
	s, err := OpenState(path)
	if errors.Is(err, ErrUnsupported) || errors.Is(err, ErrCorrupt) {
		p.line("file", "%s", path)
		p.unreadable(err)
		return errors.Join(err, p.err)
	}
	if err != nil {
		return err
	}
	defer s.Close()
	p.line("file", "%s", path)
	p.state(s)
	reasons := s.obstacles()
	if modelPath != "" {
		m, err := OpenModel(modelPath)
		if err != nil {
			return errors.Join(err, p.err)
		}
		defer m.Close()
		p.model(m)
		reasons = append(reasons, modelObstacles(m, s)...)
	}
	if len(reasons) > 0 {
		p.line("can be shared", "no: %s", strings.Join(reasons, "; "))
		return p.err
	}
	verdict := "yes"
	if err := s.Layout.Movable(); err != nil {
		verdict = "yes, at the same positions only: " + err.Error()
	}
	if modelPath == "" {
		verdict += " (as far as the file tells; give the model to know)"
	}
	p.line("can be shared", "%s", verdict)
	return p.err
}

// lines prints "name: value" with aligned values and keeps the first error.
type lines struct {
	w   io.Writer
	err error
}

func (p *lines) line(name, format string, args ...any) {
	if p.err == nil {
		_, p.err = fmt.Fprintf(p.w, "%-16s %s\n", name+":", fmt.Sprintf(format, args...))
	}
}

func (p *lines) unreadable(err error) {
	why := "it is no whole llama.cpp state"
	if errors.Is(err, ErrUnsupported) {
		why = "it holds what cannot be shared"
	}
	p.line("can be shared", "no: %s", why)
}

func (p *lines) state(s *State) {
	l := &s.Layout
	packing := "plain ids"
	if l.Packed {
		packing = "packed"
	}
	p.line("size", "%d bytes, %d a token", s.Size, l.BytesPerToken())
	p.line("version", "%d", l.Version)
	p.line("tokens", "%d, %s", len(s.Tokens), packing)
	p.line("cells", "%d, %s", s.Cells(), s.positions())
	p.line("streams", "%d, cells in stream %d", l.Streams, l.Stream)
	p.line("layers", "%d", len(l.Layers))
	for _, g := range layerGroups(l) {
		p.line("  "+g.name, "%s", g.text)
	}
	if l.NRotK != 0 || l.NRotV != 0 {
		p.line("hadamard", "K in blocks of %d, V in blocks of %d", l.NRotK, l.NRotV)
	}
}

// positions describes where the cells are.
func (s *State) positions() string {
	first, last := s.Pos[s.rowAt(0)], s.Pos[s.rowAt(len(s.Pos)-1)]
	text := fmt.Sprintf("positions %d to %d", first, last)
	if holes := int(last-first) + 1 - len(s.Pos); holes > 0 {
		text += fmt.Sprintf(" with %d missing", holes)
	}
	if s.order != nil {
		text += ", not in order"
	}
	return text
}

type layerGroup struct{ name, text string }

// layerGroups describes runs of equal layers in one line each.
func layerGroups(l *Layout) []layerGroup {
	var groups []layerGroup
	for i := 0; i < len(l.Layers); {
		end := i + 1
		for end < len(l.Layers) && l.Layers[end] == l.Layers[i] {
			end++
		}
		name := fmt.Sprintf("%d", i)
		if end > i+1 {
			name = fmt.Sprintf("%d to %d", i, end-1)
		}
		groups = append(groups, layerGroup{name, l.Layers[i].describe(l.VTrans)})
		i = end
	}
	return groups
}

func (l *LayerLayout) describe(trans bool) string {
	k := fmt.Sprintf("K %s, rows of %d bytes", l.KType, l.KRow)
	if trans {
		return k + fmt.Sprintf("; V %s, transposed, %d wide", l.VType, l.VWidth)
	}
	return k + fmt.Sprintf("; V %s, rows of %d bytes", l.VType, l.VRow)
}

// obstacles are the reasons in the file itself for which it cannot be shared.
func (s *State) obstacles() []string {
	var reasons []string
	if s.Cells() > len(s.Tokens) {
		reasons = append(reasons, fmt.Sprintf("%d cells for %d tokens", s.Cells(), len(s.Tokens)))
	}
	if last := int(s.Pos[s.rowAt(len(s.Pos)-1)]); last >= len(s.Tokens) {
		reasons = append(reasons, fmt.Sprintf("a cell at position %d of %d tokens", last, len(s.Tokens)))
	}
	return reasons
}

func (p *lines) model(m *Model) {
	p.line("model", "%s (%s), %d layers, %d KV heads of %d", m.Name, m.Arch, m.Layers, m.HeadsKV, m.HeadDim)
	p.line("model hash", "%s", m.Hash)
	if m.RoPE == nil {
		return
	}
	pairing := "NORM, pairs (2i, 2i+1)"
	if m.RoPE.NEOX {
		pairing = fmt.Sprintf("NEOX, pairs (i, i+%d)", m.RoPE.Dims/2)
	}
	p.line("rope", "%s, %d of %d dimensions, slowest %.3g radians a token", pairing, m.RoPE.Dims, m.RoPE.HeadDim, m.RoPE.Freqs[len(m.RoPE.Freqs)-1])
}

// modelObstacles are the reasons for which a state cannot be shared with m.
func modelObstacles(m *Model, s *State) []string {
	var reasons []string
	if m.Unshareable != "" {
		reasons = append(reasons, m.Unshareable)
	}
	if len(s.Layout.Layers) != m.Layers {
		reasons = append(reasons, fmt.Sprintf("the state has %d layers, the model %d", len(s.Layout.Layers), m.Layers))
	}
	for i, l := range s.Layout.Layers {
		if elems, err := l.KType.rowElems(int64(l.KRow)); err == nil && m.HeadDim > 0 && (elems%m.HeadDim != 0 || elems > m.HeadsKV*m.HeadDim) {
			return append(reasons, fmt.Sprintf("keys of layer %d have %d elements, the model's %d heads of %d", i, elems, m.HeadsKV, m.HeadDim))
		}
	}
	for i, t := range s.Tokens {
		if m.Vocab > 0 && int(t) >= m.Vocab {
			return append(reasons, fmt.Sprintf("token %d is %d, the model has %d", i, t, m.Vocab))
		}
	}
	return reasons
}
