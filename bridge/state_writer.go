package bridge

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
)

// StateWriter is a state file being written: its size is exact, its header and
// cells are in place, and its layers are mapped for composing into. It is used by
// one goroutine.
type StateWriter struct {
	layout *Layout
	cells  int
	keys   []span
	vals   []span
	m      *mapping
}

// CreateState makes the state file at path, with mode 0600, for the given tokens
// and one cell for each position of pos, which must ascend (positions may be left
// out). The cells go to the given stream of the layout, the slot's; a layout with
// one stream has only that. An existing file is written over in place, so that
// its memory is used again. The layers hold whatever was there before: the caller
// composes or clears all of it.
func CreateState(path string, l *Layout, stream int, tokens, pos []int32) (*StateWriter, error) {
	if err := checkNew(l, stream, tokens, pos); err != nil {
		return nil, fmt.Errorf("state %s: %w", path, err)
	}
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil {
		return nil, err
	}
	m, err := mapWritable(f, l.FileBytes(len(tokens), len(pos)))
	if err != nil {
		return nil, err
	}
	return newStateWriter(m, l, stream, tokens, pos), nil
}

// checkNew refuses what no server would restore.
func checkNew(l *Layout, stream int, tokens, pos []int32) error {
	switch {
	case l.Version < minVersion || l.Version > maxVersion:
		return fmt.Errorf("%w: version %d: expected %d to %d", ErrUnsupported, l.Version, minVersion, maxVersion)
	case l.Streams < 1 || l.Streams > maxStreams:
		return fmt.Errorf("%d streams: expected 1 to %d", l.Streams, maxStreams)
	case stream < 0 || stream >= l.Streams && l.Streams > 1:
		return fmt.Errorf("stream %d: expected 0 to %d", stream, l.Streams-1)
	case len(l.Layers) == 0:
		return errors.New("no layers: expected some")
	case len(pos) == 0 || len(pos) > math.MaxInt32:
		return fmt.Errorf("%d cells: expected 1 and more", len(pos))
	case pos[0] < 0:
		return fmt.Errorf("position %d: expected 0 and more", pos[0])
	}
	for i := 1; i < len(pos); i++ {
		if pos[i] <= pos[i-1] {
			return fmt.Errorf("position %d after %d: expected ascending ones", pos[i], pos[i-1])
		}
	}
	for i, t := range tokens {
		if t < 0 {
			return fmt.Errorf("token %d is %d: expected an id of 0 and more", i, t)
		}
	}
	return nil
}

func newStateWriter(m *mapping, l *Layout, stream int, tokens, pos []int32) *StateWriter {
	if l.Streams == 1 {
		stream = 0
	}
	w := &StateWriter{
		layout: l, cells: len(pos), m: m,
		keys: make([]span, len(l.Layers)), vals: make([]span, len(l.Layers)),
	}
	p := &printer{data: m.data}
	p.tokens(l, tokens)
	p.word(uint32(l.Streams))
	for i := range l.Streams {
		if i != stream {
			p.word(0)
			continue
		}
		p.cells(pos)
		w.layers(p)
	}
	return w
}

// layers writes what precedes each layer and notes where its rows lie.
func (w *StateWriter) layers(p *printer) {
	l := w.layout
	p.word(uint32(b2i(l.VTrans)))
	p.word(uint32(len(l.Layers)))
	if l.Version >= 4 {
		p.word(l.NRotK)
		p.word(l.NRotV)
	}
	for i := range l.Layers {
		p.word(uint32(l.Layers[i].KType))
		p.long(l.Layers[i].KRow)
		w.keys[i] = p.skip(int64(w.cells) * int64(l.Layers[i].KRow))
	}
	for i := range l.Layers {
		p.word(uint32(l.Layers[i].VType))
		if l.VTrans {
			p.word(l.Layers[i].VElem)
			p.word(l.Layers[i].VWidth)
		} else {
			p.long(l.Layers[i].VRow)
		}
		w.vals[i] = p.skip(int64(w.cells) * l.Layers[i].vBytes())
	}
}

// Layers is the number of layers.
func (w *StateWriter) Layers() int { return len(w.keys) }

// Layer returns the destination of layer i with its types and strides; Sources
// and SrcCells are the caller's to fill in. The slices are valid until Close.
func (w *StateWriter) Layer(i int) LayerJob {
	l := &w.layout.Layers[i]
	k, v := w.keys[i], w.vals[i]
	return LayerJob{
		K: w.m.data[k.off : k.off+k.len : k.off+k.len], V: w.m.data[v.off : v.off+v.len : v.off+v.len],
		KType: l.KType, VType: l.VType, KRow: int64(l.KRow), VRow: int64(l.VRow),
		VTrans: w.layout.VTrans, VElem: int64(l.VElem), VWidth: int64(l.VWidth),
		DstCells: int64(w.cells), KRot: int32(w.layout.NRotK),
	}
}

// Jobs returns the jobs of all layers with refs as their sources, in that order,
// whose layouts the state's must take.
func (w *StateWriter) Jobs(refs []*State) ([]LayerJob, error) {
	for _, r := range refs {
		if err := w.layout.Takes(&r.Layout); err != nil {
			return nil, fmt.Errorf("composing from %s: %w", r.Path, err)
		}
	}
	jobs := make([]LayerJob, w.Layers())
	for i := range jobs {
		jobs[i] = w.Layer(i)
		for _, r := range refs {
			src := r.Layer(i)
			src.Retyped = w.layout.VTrans != r.Layout.VTrans || w.layout.Layers[i] != r.Layout.Layers[i]
			jobs[i].Sources = append(jobs[i].Sources, src)
			jobs[i].SrcCells = append(jobs[i].SrcCells, int64(r.Cells()))
		}
	}
	return jobs, nil
}

// Close ends the writing: the file may be restored from now on.
func (w *StateWriter) Close() error { return w.m.close() }

// printer writes a state's header into memory of sufficient size.
type printer struct {
	data []byte
	off  int64
}

func (p *printer) word(v uint32) {
	binary.LittleEndian.PutUint32(p.data[p.off:], v)
	p.off += wordBytes
}

func (p *printer) long(v uint64) {
	binary.LittleEndian.PutUint64(p.data[p.off:], v)
	p.off += 8
}

func (p *printer) skip(n int64) span {
	at := span{p.off, n}
	p.off += n
	return at
}

func (p *printer) tokens(l *Layout, tokens []int32) {
	p.word(stateMagic)
	p.word(l.Version)
	if !l.Packed {
		p.word(uint32(len(tokens)))
		p.ids(tokens)
		return
	}
	p.word(uint32(len(tokens) + packedExtraBytes/wordBytes))
	p.word(^uint32(0)) // packedMark
	p.word(packedVersion)
	p.word(uint32(len(tokens)))
	p.ids(tokens)
	p.word(0) // no media
}

func (p *printer) ids(ids []int32) {
	for _, id := range ids {
		p.word(uint32(id))
	}
}

// cells writes one cell a position. All are of sequence 0: the server puts its
// own in its place.
func (p *printer) cells(pos []int32) {
	p.word(uint32(len(pos)))
	for _, at := range pos {
		p.word(uint32(at))
		p.word(1)
		p.word(0)
	}
}
