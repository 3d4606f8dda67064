package bridge

import (
	"errors"
	"fmt"
	"sort"

	"github.com/cespare/xxhash/v2"
)

// ErrCorrupt is wrapped by errors about files that say what cannot be, such as a
// size beyond the file's end. Such a file must never reach the backend.
var ErrCorrupt = errors.New("corrupt state")

// ErrUnsupported is wrapped by errors about files that may be sound but hold what
// cannot be shared, such as a sliding-window cache.
var ErrUnsupported = errors.New("unsupported state")

// Layout is how a state file lays out its KV. A server restores states whose layout
// is Equal to its own; they can be composed from those that its layout Takes.
type Layout struct {
	// Version of the file format, 2 to 4.
	Version uint32
	// Packed tokens carry a small header and a count of media; older servers
	// write plain ids.
	Packed bool
	// Streams is the number of KV streams: that of the server's slots, or 1 with
	// --kv-unified. Stream is the one that holds the cells.
	Streams, Stream int
	// VTrans says that V lies transposed (a server without flash attention).
	VTrans bool
	// NRotK and NRotV are the sides of the Hadamard blocks by which keys and
	// values were turned before storing; 0 where they were not. Version 4 only.
	NRotK, NRotV uint32
	Layers       []LayerLayout
}

// LayerLayout is the layout of one layer; sizes in bytes. VRow is 0 where V is
// transposed, VElem and VWidth where it is straight.
type LayerLayout struct {
	KType  KVType
	KRow   uint64
	VType  KVType
	VRow   uint64
	VElem  uint32
	VWidth uint32
}

// vBytes is what one cell's values take.
func (l *LayerLayout) vBytes() int64 {
	return int64(l.VRow) + int64(l.VElem)*int64(l.VWidth)
}

// BytesPerToken is what a token adds to a state file: its id, its cell and its KV
// in all layers.
func (l *Layout) BytesPerToken() int64 {
	bytes := int64(tokenBytes + cellBytes)
	for i := range l.Layers {
		bytes += int64(l.Layers[i].KRow) + l.Layers[i].vBytes()
	}
	return bytes
}

// FileBytes is the size of a state file of that many tokens and cells.
func (l *Layout) FileBytes(tokens, cells int) int64 {
	bytes := int64(fileHeaderBytes) + int64(tokens)*tokenBytes
	if l.Packed {
		bytes += packedExtraBytes
	}
	bytes += wordBytes + int64(l.Streams)*wordBytes + int64(cells)*cellBytes
	bytes += l.dataHeaderBytes()
	for i := range l.Layers {
		layer := &l.Layers[i]
		bytes += keyHeaderBytes + l.valueHeaderBytes()
		bytes += int64(cells) * (int64(layer.KRow) + layer.vBytes())
	}
	return bytes
}

func (l *Layout) dataHeaderBytes() int64 {
	if l.Version >= 4 {
		return 4 * wordBytes // v_trans, n_layer, n_rot_k, n_rot_v
	}
	return 2 * wordBytes
}

func (l *Layout) valueHeaderBytes() int64 {
	if l.VTrans {
		return 3 * wordBytes // type, element size, width
	}
	return keyHeaderBytes
}

// Equal returns nil if the server takes states of both layouts alike, and otherwise
// an error that names the first difference. The stream does not count: each slot has
// its own.
func (l *Layout) Equal(m *Layout) error {
	switch {
	case l.Version != m.Version:
		return differ("version", l.Version, m.Version)
	case l.Packed != m.Packed:
		return differ("token packing", l.Packed, m.Packed)
	case l.Streams != m.Streams:
		return differ("number of streams", l.Streams, m.Streams)
	case l.VTrans != m.VTrans:
		return differ("transposed V", l.VTrans, m.VTrans)
	}
	if err := l.sameRows(m); err != nil {
		return err
	}
	for i := range l.Layers {
		if l.Layers[i] != m.Layers[i] {
			return differ(fmt.Sprintf("layer %d", i), l.Layers[i], m.Layers[i])
		}
	}
	return nil
}

// Takes returns nil where states of this layout can be composed from states of from:
// types, the order of values and how the file is laid out around them may differ, the
// elements may not.
func (l *Layout) Takes(from *Layout) error {
	if err := l.sameRows(from); err != nil {
		return err
	}
	for i := range l.Layers {
		k, v := l.Layers[i].widths()
		fromK, fromV := from.Layers[i].widths()
		if k != fromK || v != fromV || k == 0 || v == 0 {
			return differ(fmt.Sprintf("layer %d", i), l.Layers[i], from.Layers[i])
		}
	}
	return nil
}

// ofRows is the layout without what only says how a server lays out its files and slots,
// which Takes leaves out of account. The version of files that do not say how their keys
// are turned stays.
func (l *Layout) ofRows() Layout {
	rows := *l
	rows.Packed, rows.Streams, rows.Stream = false, 0, 0
	if l.Movable() == nil {
		rows.Version = 0
	}
	return rows
}

func differ(what string, a, b any) error {
	return fmt.Errorf("layouts differ: %s is %v here and %v there", what, a, b)
}

// sameRows compares how many layers there are and how their rows were turned.
func (l *Layout) sameRows(m *Layout) error {
	switch {
	case l.NRotK != m.NRotK:
		return differ("n_rot_k", l.NRotK, m.NRotK)
	case l.NRotV != m.NRotV:
		return differ("n_rot_v", l.NRotV, m.NRotV)
	case len(l.Layers) != len(m.Layers):
		return differ("number of layers", len(l.Layers), len(m.Layers))
	}
	return nil
}

// widths are the elements of a cell's keys and values; 0 for types that no cache has.
func (l *LayerLayout) widths() (k, v int) {
	k, _ = l.KType.rowElems(int64(l.KRow))
	if l.VWidth > 0 {
		return k, int(l.VWidth)
	}
	v, _ = l.VType.rowElems(int64(l.VRow))
	return k, v
}

// Movable returns nil where keys of this layout can be turned to new positions.
// Servers since April 2026 store quantised keys Hadamard-rotated, but only files of
// version 4 say so: in older ones quantised keys may only stay where they are.
func (l *Layout) Movable() error {
	if l.Version >= 4 {
		return nil
	}
	for i := range l.Layers {
		if elems, _ := l.Layers[i].KType.BlockSize(); elems > 1 {
			return fmt.Errorf("%w: layer %d has %s keys in a version %d file, which does not say whether they are Hadamard-rotated: expected version 4 or f16, bf16, f32 keys",
				ErrUnsupported, i, l.Layers[i].KType, l.Version)
		}
	}
	return nil
}

// State is one saved state, memory-mapped and read-only. All of its structure was
// validated when it was opened. It is safe for concurrent reading until Close.
//
// The file must not be truncated while it is mapped (the backend truncates a file
// it saves to): whoever owns the file takes care that its name is not saved to.
type State struct {
	Layout Layout
	Path   string
	Size   int64
	// Tokens are the ids that the server will take for its slot's prompt.
	Tokens []int32
	// Pos holds the position of each cell, in the order of the rows. It is
	// mostly 0, 1, 2, ..., but cells may be missing, and a server that shares
	// cells between slots (--kv-unified) may hold them in any order.
	Pos []int32

	m     *mapping
	keys  []span
	vals  []span
	order []int32 // rows by ascending position; nil where Pos already ascends
}

// span is a stretch of the file.
type span struct{ off, len int64 }

// OpenState maps and validates the state file at path. Errors wrap ErrCorrupt or
// ErrUnsupported, or the operating system's.
func OpenState(path string) (*State, error) {
	m, err := mapFile(path)
	if err != nil {
		return nil, err
	}
	s := &State{Path: path, Size: int64(len(m.data)), m: m}
	if err := s.parse(m.data); err != nil {
		_ = m.close()
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	return s, nil
}

// Close unmaps the file: no slice of Layer may be used any more.
func (s *State) Close() error { return s.m.close() }

// Cells is the number of cells, which is that of the rows of every layer.
func (s *State) Cells() int { return len(s.Pos) }

// Layer returns the mapped keys and values of layer i, valid until Close.
func (s *State) Layer(i int) LayerSource {
	l := &s.Layout.Layers[i]
	return LayerSource{K: s.bytes(s.keys[i]), V: s.bytes(s.vals[i]), KType: l.KType, VType: l.VType, VTrans: s.Layout.VTrans}
}

// checksum returns the xxHash64 of the whole file.
func (s *State) checksum() uint64 { return xxhash.Sum64(s.m.data) }

func (s *State) bytes(p span) []byte { return s.m.data[p.off : p.off+p.len : p.off+p.len] }

// Row returns the row of the cell at position pos; ok is false where there is
// none.
func (s *State) Row(pos int32) (row int, ok bool) {
	if pos >= 0 && int(pos) < len(s.Pos) && s.Pos[pos] == pos {
		return int(pos), true
	}
	i := sort.Search(len(s.Pos), func(i int) bool { return s.Pos[s.rowAt(i)] >= pos })
	if i == len(s.Pos) || s.Pos[s.rowAt(i)] != pos {
		return 0, false
	}
	return s.rowAt(i), true
}

// rowAt is the row of the i-th cell in the order of positions.
func (s *State) rowAt(i int) int {
	if s.order == nil {
		return i
	}
	return int(s.order[i])
}
