package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// testLayout is a small layout with two layers.
func testLayout(version uint32, packed, trans bool, streams int, k, v KVType) *Layout {
	l := &Layout{Version: version, Packed: packed, Streams: streams, VTrans: trans}
	for range 2 {
		layer := LayerLayout{KType: k, VType: v}
		row, _ := k.RowBytes(64)
		layer.KRow = uint64(row)
		if trans {
			_, bytes := v.BlockSize()
			layer.VElem, layer.VWidth = uint32(bytes), 64
		} else {
			row, _ = v.RowBytes(64)
			layer.VRow = uint64(row)
		}
		l.Layers = append(l.Layers, layer)
	}
	return l
}

// writeState writes a state of n tokens, with seeded noise as KV.
func writeState(t testing.TB, path string, l *Layout, stream, n int, seed uint64) {
	t.Helper()
	tokens, pos := make([]int32, n), make([]int32, n)
	for i := range n {
		tokens[i], pos[i] = int32(i*7%1000), int32(i)
	}
	w, err := CreateState(path, l, stream, tokens, pos)
	if err != nil {
		t.Fatal(err)
	}
	fillNoise(w, seed)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

func fillNoise(w *StateWriter, seed uint64) {
	r := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8), byte(seed >> 16)})
	for i := range w.Layers() {
		job := w.Layer(i)
		r.Read(job.K)
		r.Read(job.V)
	}
}

// parseState reads a state from memory, which must outlive it.
func parseState(data []byte) (*State, error) {
	s := &State{Size: int64(len(data)), m: &mapping{data: data}}
	if err := s.parse(data); err != nil {
		return nil, err
	}
	return s, nil
}

func TestStateWrittenIsReadBack(t *testing.T) {
	f := func(version uint32, packed, trans bool, streams, stream int, k, v KVType) {
		t.Helper()
		l := testLayout(version, packed, trans, streams, k, v)
		path := filepath.Join(t.TempDir(), "state")
		tokens, pos := []int32{5, 6, 7, 8, 9}, []int32{0, 1, 3, 4}
		w, err := CreateState(path, l, stream, tokens, pos)
		if err != nil {
			t.Fatal(err)
		}
		var want []LayerSource
		fillNoise(w, 1)
		for i := range w.Layers() {
			job := w.Layer(i)
			want = append(want, LayerSource{K: bytes.Clone(job.K), V: bytes.Clone(job.V)})
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		s, err := OpenState(path)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if err := s.Layout.Equal(l); err != nil {
			t.Error(err)
		}
		if s.Layout.Stream != stream || !slices.Equal(s.Tokens, tokens) || !slices.Equal(s.Pos, pos) || s.Size != l.FileBytes(len(tokens), len(pos)) {
			t.Errorf("read back stream %d, tokens %v, positions %v, %d bytes", s.Layout.Stream, s.Tokens, s.Pos, s.Size)
		}
		for i := range want {
			if got := s.Layer(i); !bytes.Equal(got.K, want[i].K) || !bytes.Equal(got.V, want[i].V) {
				t.Errorf("layer %d was changed", i)
			}
		}
	}
	for _, version := range []uint32{2, 3, 4} {
		for _, packed := range []bool{true, false} {
			f(version, packed, false, 1, 0, F16, F16)
			f(version, packed, true, 1, 0, F16, F32)
			f(version, packed, false, 4, 2, BF16, Q8_0)
		}
	}
	for _, k := range []KVType{F32, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4NL} {
		f(4, true, false, 2, 1, k, k)
	}
	f(4, true, true, 2, 0, Q8_0, BF16)
}

func TestCreateStateRefusesWhatNoServerRestores(t *testing.T) {
	f := func(change func(l *Layout), stream int, tokens, pos []int32) {
		t.Helper()
		l := testLayout(4, true, false, 2, F16, F16)
		change(l)
		path := filepath.Join(t.TempDir(), "state")
		if w, err := CreateState(path, l, stream, tokens, pos); err == nil {
			w.Close()
			t.Error("no error")
		}
		if _, err := os.Stat(path); err == nil {
			t.Error("a file was made")
		}
	}
	same := func(*Layout) {}
	one := []int32{0}
	f(func(l *Layout) { l.Version = 5 }, 0, one, one)
	f(func(l *Layout) { l.Layers = nil }, 0, one, one)
	f(func(l *Layout) { l.Streams = 0 }, 0, one, one)
	f(same, 2, one, one)
	f(same, -1, one, one)
	f(same, 0, one, nil)
	f(same, 0, one, []int32{-1})
	f(same, 0, one, []int32{3, 3})
	f(same, 0, []int32{-1}, one)
}

func TestRowFindsCellsInAnyOrder(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		pos := rapid.SliceOfNDistinct(rapid.Int32Range(0, 60), 1, 40, rapid.ID[int32]).Draw(t, "pos")
		s := &State{Pos: pos}
		if err := s.sortRows(&reader{}); err != nil {
			t.Fatal(err)
		}
		for p := int32(-1); p < 62; p++ {
			row, ok := s.Row(p)
			if want := slices.Index(pos, p); ok != (want >= 0) || ok && row != want {
				t.Fatalf("Row(%d) = %d, %v in %v", p, row, ok, pos)
			}
		}
	})
}

// raw builds state files word by word, also such as no server writes.
type raw struct{ bytes.Buffer }

func (r *raw) words(vs ...int64) *raw {
	for _, v := range vs {
		binary.Write(r, binary.LittleEndian, uint32(v))
	}
	return r
}

func (r *raw) long(v uint64) *raw {
	binary.Write(r, binary.LittleEndian, v)
	return r
}

func (r *raw) rows(n int) *raw { r.Write(make([]byte, n)); return r }

// cache is one cache of two cells, f16, one layer of 4 elements.
func (r *raw) cache(version int, ext int) *raw {
	r.words(1, 2)
	for pos := range int64(2) {
		r.words(pos, 1).rows(ext).words(0)
	}
	return r.data(version)
}

func (r *raw) data(version int) *raw {
	r.words(0, 1)
	if version >= 4 {
		r.words(0, 0)
	}
	r.words(1).long(8).rows(16)
	return r.words(1).long(8).rows(16)
}

func header(version int64) *raw { return new(raw).words(stateMagic, version, 6, -1, 1, 2, 11, 12, 0) }

func TestParseAcceptsWhatServersWrite(t *testing.T) {
	f := func(r *raw, packed bool, seqs int) {
		t.Helper()
		s, err := parseState(r.Bytes())
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(s.Tokens, []int32{11, 12}) || s.Layout.Packed != packed || s.Cells() != 2 {
			t.Errorf("tokens %v, packed %v, %d cells", s.Tokens, s.Layout.Packed, s.Cells())
		}
	}
	f(header(4).cache(4, 0), true, 1)
	f(header(3).cache(3, 0), true, 1)
	f(new(raw).words(stateMagic, 3, 2, 11, 12).cache(3, 0), false, 1)
	// Cells that several sequences share.
	f(header(4).words(1, 2, 0, 2, 0, 1, 1, 3, 0, 1, 2).data(4), true, 2)
}

func TestParseRefuses(t *testing.T) {
	f := func(want error, text string, r *raw) {
		t.Helper()
		_, err := parseState(r.Bytes())
		if !errors.Is(err, want) || !bytes.Contains([]byte(err.Error()), []byte(text)) {
			t.Errorf("got %v, want %v with %q", err, want, text)
		}
	}
	f(ErrCorrupt, "magic", new(raw))
	f(ErrCorrupt, "magic", new(raw).words(1, 4, 0))
	f(ErrUnsupported, "version 1", new(raw).words(stateMagic, 1, 0))
	f(ErrUnsupported, "version 5", new(raw).words(stateMagic, 5, 0))
	f(ErrCorrupt, "tokens", new(raw).words(stateMagic, 4, 1<<31))
	f(ErrCorrupt, "packed", new(raw).words(stateMagic, 4, 1, -1))
	f(ErrUnsupported, "packing 2", new(raw).words(stateMagic, 4, 4, -1, 2, 0, 0))
	f(ErrCorrupt, "expected 1", new(raw).words(stateMagic, 4, 5, -1, 1, 7, 0, 0))
	f(ErrUnsupported, "media", new(raw).words(stateMagic, 4, 5, -1, 1, 1, 9, 2))
	f(ErrUnsupported, "media", new(raw).words(stateMagic, 4, 8, -1, 1, 1, 9, 1, 5, 5, 5))
	f(ErrUnsupported, "media", new(raw).words(stateMagic, 3, 2, 5, -1).cache(3, 0))
	f(ErrCorrupt, "streams", header(4).words(0))
	f(ErrCorrupt, "streams", header(4).words(257))
	f(ErrUnsupported, "no cells", header(4).words(2, 0, 0))
	f(ErrCorrupt, "cells", header(4).words(1, 1<<31))
	f(ErrCorrupt, "position", header(4).words(1, 1, -1, 1, 0, 0, 0))
	f(ErrCorrupt, "in 0 sequences", header(4).words(1, 1, 0, 0, 0, 0, 0))
	f(ErrCorrupt, "two cells", header(4).words(1, 2, 5, 1, 0, 5, 1, 0).data(4))
	f(ErrCorrupt, "v_trans", header(4).words(1, 1, 0, 1, 0, 2))
	f(ErrCorrupt, "layers", header(4).words(1, 1, 0, 1, 0, 0, 0))
	f(ErrCorrupt, "layers", header(4).words(1, 1, 0, 1, 0, 0, 1<<20))
	f(ErrCorrupt, "Hadamard", header(4).words(1, 1, 0, 1, 0, 0, 1, 3, 0))
	f(ErrUnsupported, "type 12", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 12))
	f(ErrCorrupt, "rows", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 1).long(1<<40))
	f(ErrCorrupt, "rows", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 1).long(3))
	f(ErrCorrupt, "rows", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 1).long(4096))
	f(ErrUnsupported, "layer 0 keeps nothing", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 1).long(0))
	f(ErrUnsupported, "layer 0 keeps nothing", header(4).words(1, 1, 0, 1, 0, 1, 1, 0, 0, 1).long(2).rows(2).words(1, 2, 0))
	f(ErrUnsupported, "transposed", header(4).words(1, 1, 0, 1, 0, 1, 1, 0, 0, 1).long(2).rows(2).words(8, 34, 1))
	f(ErrCorrupt, "elements", header(4).words(1, 1, 0, 1, 0, 1, 1, 0, 0, 1).long(2).rows(2).words(1, 4, 1).rows(4))
	f(ErrCorrupt, "follow", header(4).cache(4, 0).rows(4))
	f(ErrUnsupported, "one sequence", header(4).words(2).words(1, 0, 1, 0).data1().words(1, 0, 1, 0))
	f(ErrUnsupported, "sliding-window", header(4).cache(4, 0).cache(4, 0))
	f(ErrUnsupported, "recurrent", header(4).cache(4, 0).words(0x504b4353, 1, 2)) // "SCKP"
	f(ErrUnsupported, "M-RoPE", header(4).cache(4, 8))
	f(ErrUnsupported, "M-RoPE", header(3).cache(3, 12))
	f(ErrUnsupported, "MLA", header(4).words(1, 1, 0, 1, 0, 0, 1, 0, 0, 1).long(8).rows(8))
}

// data1 is the data of one cell.
func (r *raw) data1() *raw {
	r.words(0, 1, 0, 0).words(1).long(8).rows(8)
	return r.words(1).long(8).rows(8)
}

func TestParseRefusesEveryTruncation(t *testing.T) {
	whole := header(4).cache(4, 0).Bytes()
	for n := range whole {
		if _, err := parseState(whole[:n]); err == nil {
			t.Errorf("%d of %d bytes parse", n, len(whole))
		}
	}
}

// The golden states were saved by real servers, of xllamacpp 0.2.14 (v2-plain,
// v2-vtrans), 2026.8 (v2-packed), 2026.9 (v3) and 2026.10 (v4), with
// testdata/make-states.
func TestGoldenStatesOfRealServers(t *testing.T) {
	f := func(name string, want Layout, k, v KVType) {
		t.Helper()
		path := filepath.Join("testdata", "state-"+name+".bin")
		s, err := OpenState(path)
		if err != nil {
			t.Error(err)
			return
		}
		defer s.Close()
		want.Layers = testLayout(want.Version, want.Packed, want.VTrans, want.Streams, k, v).Layers
		if err := s.Layout.Equal(&want); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if text := tokenText(s.Tokens); text != "In the beginning" || s.Cells() != len(text) {
			t.Errorf("%s: %q in %d cells", name, text, s.Cells())
		}
		whole, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if again := rewrite(t, s); !bytes.Equal(again, whole) {
			t.Errorf("%s: writing what was read gives another file", name)
		}
	}
	f("v2-plain", Layout{Version: 2, Streams: 2}, F16, F16)
	f("v2-vtrans", Layout{Version: 2, Streams: 2, VTrans: true}, F16, F16)
	f("v2-packed", Layout{Version: 2, Packed: true, Streams: 2}, F16, F16)
	f("v3-f16", Layout{Version: 3, Packed: true, Streams: 2}, F16, F16)
	f("v4-f16", Layout{Version: 4, Packed: true, Streams: 2}, F16, F16)
	f("v4-f16-unified", Layout{Version: 4, Packed: true, Streams: 1}, F16, F16)
	f("v4-vtrans", Layout{Version: 4, Packed: true, Streams: 2, VTrans: true}, F16, F16)
	f("v4-q8", Layout{Version: 4, Packed: true, Streams: 2, NRotK: 64, NRotV: 64}, Q8_0, Q8_0)
	f("v4-q4", Layout{Version: 4, Packed: true, Streams: 2, NRotK: 64}, Q4_0, BF16)
}

// tokenText is the text of a tiny model's tokens: its ids are bytes.
func tokenText(tokens []int32) string {
	var b []byte
	for _, t := range tokens {
		b = append(b, byte(t))
	}
	return string(b)
}

// rewrite writes a state from what was read of another.
func rewrite(t *testing.T, s *State) []byte {
	t.Helper()
	path := filepath.Join(t.TempDir(), "again")
	w, err := CreateState(path, &s.Layout, s.Layout.Stream, s.Tokens, s.Pos)
	if err != nil {
		t.Fatal(err)
	}
	for i := range w.Layers() {
		job, src := w.Layer(i), s.Layer(i)
		copy(job.K, src.K)
		copy(job.V, src.V)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	// The one thing that differs: servers write the slot's sequence id, we 0.
	seq := s.seqOffset()
	for i := range s.Cells() {
		copy(data[seq+int64(i)*cellBytes:], s.m.data[seq+int64(i)*cellBytes:][:4])
	}
	return data
}

func (s *State) seqOffset() int64 {
	off := int64(fileHeaderBytes + len(s.Tokens)*tokenBytes)
	if s.Layout.Packed {
		off += packedExtraBytes
	}
	return off + wordBytes + int64(s.Layout.Stream+1)*wordBytes + 2*wordBytes
}

func TestLayoutEqualNamesTheDifference(t *testing.T) {
	f := func(text string, change func(*Layout)) {
		t.Helper()
		a, b := testLayout(4, true, false, 2, F16, F16), testLayout(4, true, false, 2, F16, F16)
		a.Stream = 1
		if err := a.Equal(b); err != nil {
			t.Fatal(err)
		}
		change(b)
		if err := a.Equal(b); err == nil || !bytes.Contains([]byte(err.Error()), []byte(text)) {
			t.Errorf("got %v, want one about %q", err, text)
		}
	}
	f("version", func(l *Layout) { l.Version = 3 })
	f("packing", func(l *Layout) { l.Packed = false })
	f("streams", func(l *Layout) { l.Streams = 1 })
	f("transposed", func(l *Layout) { l.VTrans = true })
	f("n_rot_k", func(l *Layout) { l.NRotK = 64 })
	f("n_rot_v", func(l *Layout) { l.NRotV = 64 })
	f("number of layers", func(l *Layout) { l.Layers = l.Layers[:1] })
	f("layer 1", func(l *Layout) { l.Layers[1].VRow = 2 })
}

func FuzzOpenState(f *testing.F) {
	f.Add(header(4).cache(4, 0).Bytes())
	f.Add(header(3).cache(3, 12).Bytes())
	f.Add(header(4).cache(4, 0).cache(4, 0).Bytes())
	f.Add(new(raw).words(stateMagic, 3, 2, 11, 12).cache(3, 0).Bytes())
	f.Add(header(4).words(1, 2, 0, 2, 0, 1, 1, 1, 0).data(4).Bytes())
	f.Add(header(4).words(2, 0, 1, 0, 1, 0, 1, 1, 0, 0, 1).long(2).rows(2).words(1, 2, 1).rows(2).Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := parseState(data)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrUnsupported) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		// What is accepted is described in full: every byte of it is reached.
		var total int
		for i := range s.Layout.Layers {
			l := s.Layer(i)
			total += len(l.K) + len(l.V)
		}
		if total > len(data) || s.Cells() == 0 {
			t.Errorf("%d bytes of rows, %d cells in a file of %d bytes", total, s.Cells(), len(data))
		}
		for i, pos := range s.Pos {
			if row, ok := s.Row(pos); !ok || row != i {
				t.Errorf("Row(%d) = %d, %v: want %d", pos, row, ok, i)
			}
		}
	})
}

func ExampleLayout_Equal() {
	a := Layout{Version: 4, Streams: 1}
	b := Layout{Version: 3, Streams: 1}
	fmt.Println(a.Equal(&b))
	// Output: layouts differ: version is 4 here and 3 there
}
