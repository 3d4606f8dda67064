package bridge

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// Compression says in which types a reference's keys and values are kept.
type Compression struct{ Keys, Values KVType }

// ParseCompression reads "off" (nil: references are kept as the backend saved them),
// the name of a cache type, or those of the keys' and the values' as "q8_0/q5_1".
func ParseCompression(s string) (*Compression, error) {
	if s == "off" {
		return nil, nil
	}
	keys, values, two := strings.Cut(s, "/")
	if !two {
		values = keys
	}
	k, err := ParseKVType(keys)
	if err != nil {
		return nil, err
	}
	v, err := ParseKVType(values)
	if err != nil {
		return nil, err
	}
	return &Compression{k, v}, nil
}

// Layout returns l with its f32, f16 and bf16 halves stored in c's types, values in rows. A
// half stays as it is if it is packed already, or if c's blocks do not divide its rows or
// would make them larger.
func (c *Compression) Layout(l *Layout) *Layout {
	out := *l
	out.Layers = slices.Clone(l.Layers)
	// Values lie in columns in all layers or in none.
	out.VTrans = l.VTrans && slices.ContainsFunc(l.Layers, func(l LayerLayout) bool { return !c.packsValues(l) })
	for i := range out.Layers {
		layer := &out.Layers[i]
		k, v := layer.widths()
		if row, ok := smaller(layer.KType, c.Keys, k); ok {
			layer.KType, layer.KRow = c.Keys, row
		}
		if row, ok := smaller(layer.VType, c.Values, v); ok && !out.VTrans {
			layer.VType, layer.VRow, layer.VElem, layer.VWidth = c.Values, row, 0, 0
		}
	}
	return &out
}

// packsValues tells whether a layer's values are to be stored in c's type.
func (c *Compression) packsValues(l LayerLayout) bool {
	_, v := l.widths()
	_, ok := smaller(l.VType, c.Values, v)
	return ok
}

// smaller returns the bytes of a row of width elements in type to, and whether a
// cache of type from is to be stored so.
func smaller(from, to KVType, width int) (row uint64, ok bool) {
	elems, size := from.BlockSize()
	bytes, err := to.RowBytes(width)
	return uint64(bytes), err == nil && elems == 1 && width > 0 && bytes < width*size
}

// rewriteState writes the state src anew at path, in the given layout, its cells in
// order of position.
func rewriteState(src *State, path string, l *Layout, k *Kernels, threads int) (err error) {
	pos, runs := make([]int32, src.Cells()), gather{}
	for i := range pos {
		pos[i] = src.Pos[src.rowAt(i)]
		runs.add(src, Run{Src: pos[i], Dst: pos[i], Len: 1})
	}
	w, err := CreateState(path, l, src.Layout.Stream, src.Tokens, pos)
	if err != nil {
		return err
	}
	defer func() {
		if closed := w.Close(); err == nil {
			err = closed
		}
		if err != nil {
			_ = os.Remove(path)
		}
	}()
	jobs, err := w.Jobs([]*State{src})
	if err != nil {
		return err
	}
	if err := k.Compose(jobs, runs.runs, nil, threads); err != nil {
		return fmt.Errorf("rewriting %s: %w", src.Path, err)
	}
	return nil
}
