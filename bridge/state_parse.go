package bridge

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
)

// The file format, little-endian, as llama.cpp writes it (llama_context::
// state_seq_save_file, llama_kv_cache::state_write):
//
//	u32 magic, u32 version, u32 n, n words of tokens
//	u32 n_stream, and for each stream
//	  u32 cell_count, and unless that is 0
//	    cells:  i32 pos, u32 n_seq, n_seq x i32
//	    u32 v_trans, u32 n_layer, from version 4 on u32 n_rot_k, u32 n_rot_v
//	    layers: i32 type, u64 row bytes, rows        (K)
//	    layers: i32 type, u64 row bytes, rows        (V, straight)
//	        or  i32 type, u32 element bytes, u32 width, width x cells (transposed)
//
// Packed tokens are -1, 1, count, ids, number of media.
const (
	stateMagic = 0x67677371 // "ggsq"
	ggufMagic  = 0x46554747 // "GGUF"

	wordBytes        = 4
	fileHeaderBytes  = 3 * wordBytes
	tokenBytes       = wordBytes
	packedExtraBytes = 4 * wordBytes // -1, 1, count; number of media
	cellBytes        = 3 * wordBytes // with one sequence id
	keyHeaderBytes   = wordBytes + 8

	// Version 2 differs from 3 only in M-RoPE models. Servers that write plain
	// tokens write it.
	minVersion, maxVersion = 2, 4

	// What llama.cpp itself allows: LLAMA_MAX_SEQ, LLAMA_MAX_LAYERS, and for the
	// width of a row more than any model has.
	maxStreams  = 256
	maxSeqIDs   = 256
	maxLayers   = 512
	maxRowBytes = 1 << 24

	packedMark    = -1
	packedVersion = 1
)

// reader walks over the bytes of a state; every read is checked against the end.
type reader struct {
	data []byte
	off  int64
}

func (r *reader) left() int64 { return int64(len(r.data)) - r.off }

func (r *reader) corrupt(format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: "+format, append([]any{ErrCorrupt, r.off}, args...)...)
}

func (r *reader) unsupported(format string, args ...any) error {
	return fmt.Errorf("%w at byte %d: "+format, append([]any{ErrUnsupported, r.off}, args...)...)
}

// word reads a u32 called name.
func (r *reader) word(name string) (uint32, error) {
	if r.left() < wordBytes {
		return 0, r.corrupt("%s: %d bytes left, expected 4", name, r.left())
	}
	v := binary.LittleEndian.Uint32(r.data[r.off:])
	r.off += wordBytes
	return v, nil
}

func (r *reader) long(name string) (uint64, error) {
	if r.left() < 8 {
		return 0, r.corrupt("%s: %d bytes left, expected 8", name, r.left())
	}
	v := binary.LittleEndian.Uint64(r.data[r.off:])
	r.off += 8
	return v, nil
}

// words reads n words as int32; n is checked before anything is allocated.
func (r *reader) words(name string, n int64) ([]int32, error) {
	if n > r.left()/wordBytes {
		return nil, r.corrupt("%s: %d of 4 bytes announced, %d bytes left", name, n, r.left())
	}
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(binary.LittleEndian.Uint32(r.data[r.off:]))
		r.off += wordBytes
	}
	return out, nil
}

// area skips rows x bytes and returns where they lie. Both factors are below 2^32,
// so that their product cannot wrap.
func (r *reader) area(name string, rows, bytes int64) (span, error) {
	if bytes != 0 && rows > r.left()/bytes {
		return span{}, r.corrupt("%s: %d rows of %d bytes announced, %d bytes left", name, rows, bytes, r.left())
	}
	p := span{r.off, rows * bytes}
	r.off += p.len
	return p, nil
}

func (s *State) parse(data []byte) error {
	r := &reader{data: data}
	if err := s.parseTokens(r); err != nil {
		return err
	}
	start := r.off
	err := s.parseStreams(r, 0)
	if err == nil && r.left() == 0 {
		return s.sortRows(r)
	}
	if named := s.explain(data, start, r.off, err); named != nil {
		return named
	}
	if err == nil {
		err = r.corrupt("%d bytes follow the last layer: expected none (a cache that is hybrid or has more than one part also looks so)", r.left())
	}
	return err
}

func (s *State) parseTokens(r *reader) error {
	magic, err := r.word("magic")
	if err != nil {
		return err
	}
	if magic != stateMagic {
		r.off = 0
		if magic == ggufMagic {
			return r.corrupt("a model file (GGUF): expected what a server saved of a slot")
		}
		return r.corrupt("magic %08x: expected %08x", magic, stateMagic)
	}
	if s.Layout.Version, err = r.word("version"); err != nil {
		return err
	}
	if v := s.Layout.Version; v < minVersion || v > maxVersion {
		return r.unsupported("version %d: expected %d to %d", v, minVersion, maxVersion)
	}
	n, err := r.word("number of tokens")
	if err != nil {
		return err
	}
	words, err := r.words("tokens", int64(n))
	if err != nil {
		return err
	}
	s.Tokens, s.Layout.Packed, err = unpackTokens(r, words)
	return err
}

// unpackTokens tells packed tokens from plain ones: no plain list starts with -1.
func unpackTokens(r *reader, words []int32) (tokens []int32, packed bool, err error) {
	tokens = words
	if len(words) > 0 && words[0] == packedMark {
		if len(words) < packedExtraBytes/wordBytes {
			return nil, false, r.corrupt("%d words of packed tokens: expected 4 and more", len(words))
		}
		count, media := int64(words[2]), words[len(words)-1]
		switch {
		case words[1] != packedVersion:
			return nil, false, r.unsupported("token packing %d: expected %d", words[1], packedVersion)
		case count >= 0 && count < int64(len(words)-4):
			// What follows the ids describes images or audio.
			return nil, false, r.unsupported("%d ids in %d packed words: expected no media", count, len(words))
		case count != int64(len(words)-4):
			return nil, false, r.corrupt("%d ids in %d packed words: expected %d", count, len(words), len(words)-4)
		case media != 0:
			return nil, false, r.unsupported("%d media among the tokens: expected none", media)
		}
		tokens, packed = words[3:len(words)-1], true
	}
	if i := slices.IndexFunc(tokens, func(t int32) bool { return t < 0 }); i >= 0 {
		return nil, false, r.unsupported("token %d is %d: expected an id of 0 and more (negative ones stand for media)", i, tokens[i])
	}
	return tokens, packed, nil
}

// parseStreams reads one whole cache. ext is the number of extra bytes a cell
// carries, 0 in all that can be shared.
func (s *State) parseStreams(r *reader, ext int64) error {
	n, err := r.word("number of streams")
	if err != nil {
		return err
	}
	if n == 0 || n > maxStreams {
		return r.corrupt("%d streams: expected 1 to %d", n, maxStreams)
	}
	s.Layout.Streams, s.Layout.Stream = int(n), -1
	for i := range int(n) {
		cells, err := r.word("number of cells")
		if err != nil {
			return err
		}
		if cells == 0 {
			continue
		}
		if s.Layout.Stream >= 0 {
			return r.unsupported("cells in streams %d and %d: expected one sequence", s.Layout.Stream, i)
		}
		s.Layout.Stream = i
		if err := s.parseCells(r, int64(cells), ext); err != nil {
			return err
		}
		if err := s.parseData(r, int64(cells)); err != nil {
			return err
		}
	}
	if s.Layout.Stream < 0 {
		return r.unsupported("no cells: expected a slot that holds something")
	}
	return nil
}

func (s *State) parseCells(r *reader, cells, ext int64) error {
	if cells > r.left()/(cellBytes+ext) {
		return r.corrupt("%d cells announced, %d bytes left", cells, r.left())
	}
	s.Pos = make([]int32, cells)
	for i := range s.Pos {
		pos, err := r.word("position")
		if err != nil {
			return err
		}
		if int32(pos) < 0 {
			return r.corrupt("cell %d at position %d: expected 0 and more", i, int32(pos))
		}
		s.Pos[i] = int32(pos)
		seqs, err := r.word("number of sequences")
		if err != nil {
			return err
		}
		if seqs == 0 || seqs > maxSeqIDs {
			return r.corrupt("cell %d in %d sequences: expected 1 to %d", i, seqs, maxSeqIDs)
		}
		if _, err := r.area("cell", 1, ext); err != nil {
			return err
		}
		for range seqs {
			id, err := r.word("sequence id")
			if err != nil {
				return err
			}
			if id >= maxSeqIDs {
				return r.corrupt("cell %d in sequence %d: expected less than %d", i, int32(id), maxSeqIDs)
			}
		}
	}
	return nil
}

func (s *State) parseData(r *reader, cells int64) error {
	trans, err := r.word("v_trans")
	if err != nil {
		return err
	}
	if trans > 1 {
		return r.corrupt("v_trans %d: expected 0 or 1", trans)
	}
	s.Layout.VTrans = trans == 1
	layers, err := r.word("number of layers")
	if err != nil {
		return err
	}
	if layers == 0 || layers > maxLayers {
		return r.corrupt("%d layers: expected 1 to %d", layers, maxLayers)
	}
	if s.Layout.Version >= 4 {
		if err := s.parseRotations(r); err != nil {
			return err
		}
	}
	s.Layout.Layers = make([]LayerLayout, layers)
	s.keys, s.vals = make([]span, layers), make([]span, layers)
	for i := range s.Layout.Layers {
		l := &s.Layout.Layers[i]
		if l.KType, l.KRow, s.keys[i], err = parseRows(r, "K", i, cells); err != nil {
			return err
		}
	}
	for i := range s.Layout.Layers {
		l := &s.Layout.Layers[i]
		if s.Layout.VTrans {
			err = s.parseTransposed(r, i, l, cells)
		} else {
			l.VType, l.VRow, s.vals[i], err = parseRows(r, "V", i, cells)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *State) parseRotations(r *reader) (err error) {
	if s.Layout.NRotK, err = r.word("n_rot_k"); err != nil {
		return err
	}
	if s.Layout.NRotV, err = r.word("n_rot_v"); err != nil {
		return err
	}
	for _, n := range []uint32{s.Layout.NRotK, s.Layout.NRotV} {
		if n&(n-1) != 0 || n > maxRowBytes {
			return r.corrupt("Hadamard blocks of %d: expected 0 or a power of two", n)
		}
	}
	return nil
}

// parseType reads a tensor type, the first word of every layer.
func parseType(r *reader, name string, layer int) (KVType, error) {
	t, err := r.word("type")
	if err != nil {
		return 0, err
	}
	if !KVType(t).IsCache() {
		return 0, r.unsupported("%s of layer %d has type %d: expected f32, f16, bf16, q8_0, q4_0, q4_1, q5_0, q5_1 or iq4_nl", name, layer, t)
	}
	return KVType(t), nil
}

// withoutAttention is said of a layer whose rows are empty.
const withoutAttention = "layer %d keeps nothing: the model has layers without attention"

func parseRows(r *reader, name string, layer int, cells int64) (t KVType, row uint64, p span, err error) {
	if t, err = parseType(r, name, layer); err != nil {
		return
	}
	if row, err = r.long("row size"); err != nil {
		return
	}
	if row == 0 {
		err = r.unsupported(withoutAttention, layer)
		return
	}
	_, block := t.BlockSize()
	if row > maxRowBytes || row%uint64(block) != 0 {
		err = r.corrupt("%s rows of layer %d have %d bytes: expected a multiple of %d up to %d", name, layer, row, block, maxRowBytes)
		return
	}
	p, err = r.area(name, cells, int64(row))
	return
}

func (s *State) parseTransposed(r *reader, layer int, l *LayerLayout, cells int64) (err error) {
	if l.VType, err = parseType(r, "V", layer); err != nil {
		return err
	}
	if l.VElem, err = r.word("element size"); err != nil {
		return err
	}
	if l.VWidth, err = r.word("width"); err != nil {
		return err
	}
	elems, bytes := l.VType.BlockSize()
	switch {
	case elems != 1:
		return r.unsupported("transposed V of layer %d has type %s: expected f32, f16 or bf16", layer, l.VType)
	case l.VElem != uint32(bytes):
		return r.corrupt("V elements of layer %d have %d bytes: %s has %d", layer, l.VElem, l.VType, bytes)
	case l.VWidth == 0:
		return r.unsupported(withoutAttention, layer)
	case l.VWidth > maxRowBytes:
		return r.corrupt("V of layer %d is %d wide: expected 1 to %d", layer, l.VWidth, maxRowBytes)
	}
	s.vals[layer], err = r.area("V", int64(l.VWidth)*int64(l.VElem), cells)
	return err
}

// sortRows notes the order of the cells by position, where it is not that of the
// rows, and refuses two cells at one position.
func (s *State) sortRows(r *reader) error {
	if !slices.IsSorted(s.Pos) {
		s.order = make([]int32, len(s.Pos))
		for i := range s.order {
			s.order[i] = int32(i)
		}
		slices.SortFunc(s.order, func(a, b int32) int { return int(s.Pos[a]) - int(s.Pos[b]) })
	}
	for i := 1; i < len(s.Pos); i++ {
		if pos := s.Pos[s.rowAt(i)]; pos == s.Pos[s.rowAt(i-1)] {
			return r.corrupt("two cells at position %d: expected one", pos)
		}
	}
	return nil
}

// explain names the known layouts that cannot be shared and that do not parse as
// one plain cache: those with two caches, with extra bytes a cell, without V. It
// returns nil for what is none of them. start is where the cache begins, end where
// parsing it came to, with err.
func (s *State) explain(data []byte, start, end int64, err error) error {
	whole := func(from, ext int64) bool {
		r := &reader{data: data, off: from}
		t := &State{Layout: Layout{Version: s.Layout.Version}}
		return t.parseStreams(r, ext) == nil && r.left() == 0
	}
	at := &reader{data: data, off: end}
	switch {
	case err == nil && bytes.HasPrefix(data[end:], []byte("SCKP")):
		return at.unsupported("checkpoints follow the cache: the model has sliding-window or recurrent layers")
	case err == nil && whole(end, 0):
		return at.unsupported("a second cache follows the first: the model has sliding-window layers")
	case err == nil:
		return nil
	case whole(start, 2*wordBytes), whole(start, 3*wordBytes):
		return at.unsupported("cells carry more than one position: the model has M-RoPE")
	case end == int64(len(data)) && s.endOfKeys() == end:
		return at.unsupported("keys without values: the model has latent attention (MLA)")
	}
	return nil
}

// endOfKeys is where the keys of the last layer end, 0 where parsing did not come
// to them.
func (s *State) endOfKeys() int64 {
	if len(s.keys) == 0 {
		return 0
	}
	last := s.keys[len(s.keys)-1]
	return last.off + last.len
}
