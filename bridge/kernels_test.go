package bridge

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

// testLibrary is where `make build` puts the native kernels.
const testLibrary = "../bin/libsemshare.so"

var cacheTypes = []KVType{F32, F16, BF16, Q8_0, Q4_0, Q4_1, Q5_0, Q5_1, IQ4NL}

// testKernels returns the Go kernels, and the native ones on each instruction set
// where the library is built.
func testKernels(t testing.TB) []*Kernels {
	t.Helper()
	all := []*Kernels{GoKernels()}
	k := nativeKernels(t)
	if k != nil {
		all = append(all, k)
	}
	return all
}

func nativeKernels(t testing.TB) *Kernels {
	t.Helper()
	if _, err := os.Stat(testLibrary); err != nil {
		t.Logf("SKIPPED native kernels: %v: run `make build`", err)
		return nil
	}
	k, err := LoadKernels(testLibrary)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func testRoPE(t testing.TB, neox bool, headDim, dims int) *RoPE {
	t.Helper()
	r, err := NewRoPE(RoPEParams{NEOX: neox, HeadDim: headDim, Dims: dims, Base: 10000})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func randomRow(rng *rand.Rand, n int) []float32 {
	row := make([]float32, n)
	for i := range row {
		row[i] = float32(rng.NormFloat64())
	}
	return row
}

// packedRows returns rows x n normally distributed values, packed.
func packedRows(t rowsFailer, rng *rand.Rand, kv KVType, rows, n int) []byte {
	size, err := kv.RowBytes(n)
	if err != nil {
		t.Fatal(err)
	}
	out := make([]byte, rows*size)
	for r := range rows {
		goQuantize(kv, randomRow(rng, n), out[r*size:(r+1)*size])
	}
	return out
}

// moveKeys composes one layer of keys alone, all rows moved by delta.
func moveKeys(t testing.TB, k *Kernels, kv KVType, keys []byte, rows int, rope *RoPE, delta, rot int32) []byte {
	t.Helper()
	out := make([]byte, len(keys))
	job := LayerJob{K: out, KType: kv, KRow: int64(len(keys) / rows), KRot: rot, Sources: []LayerSource{{K: keys}}}
	if err := k.Compose([]LayerJob{job}, []Run{{Len: int32(rows), Delta: delta}}, rope, 2); err != nil {
		t.Fatal(err)
	}
	return out
}

func unpacked(kv KVType, b []byte) []float32 {
	elems, size := kv.BlockSize()
	out := make([]float32, len(b)/size*elems)
	goDequantize(kv, b, out)
	return out
}

// drift is the largest difference, relative to the largest value.
func drift(a, b []float32) float64 {
	var diff, top float64
	for i := range a {
		diff = max(diff, math.Abs(float64(a[i]-b[i])))
		top = max(top, math.Abs(float64(a[i])))
	}
	return diff / top
}

// rounding is what a type loses of a value, relative to the largest of its block.
var rounding = map[KVType]float64{
	F32: 1e-6, F16: 0x1p-11, BF16: 0x1p-8, Q8_0: 1. / 254, Q5_0: 1. / 16, Q5_1: 1. / 31,
	Q4_0: 1. / 8, Q4_1: 1. / 15, IQ4NL: 1. / 8,
}

func TestNativeAndGoComposeAlike(t *testing.T) {
	native := nativeKernels(t)
	if native == nil {
		t.Skip("SKIPPED: no native library")
	}
	rapid.Check(t, func(rt *rapid.T) {
		jobs, runs, rope := drawCompose(rt)
		fromGo, fromC := cloneTargets(jobs), cloneTargets(jobs)
		threads := rapid.IntRange(1, 3).Draw(rt, "threads")
		if err := GoKernels().Compose(fromGo, runs, rope, threads); err != nil {
			rt.Fatal(err)
		}
		if err := native.Compose(fromC, runs, rope, threads); err != nil {
			rt.Fatal(err)
		}
		for i := range jobs {
			if !bytes.Equal(fromGo[i].K, fromC[i].K) || !bytes.Equal(fromGo[i].V, fromC[i].V) {
				rt.Fatalf("layer %d (%s keys): native and Go differ", i, jobs[i].KType)
			}
		}
	})
}

func cloneTargets(jobs []LayerJob) []LayerJob {
	out := append([]LayerJob(nil), jobs...)
	for i := range out {
		out[i].K, out[i].V = bytes.Clone(out[i].K), bytes.Clone(out[i].V)
	}
	return out
}

// drawCompose makes a small composition of any shape that is valid.
func drawCompose(rt *rapid.T) ([]LayerJob, []Run, *RoPE) {
	rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
	headDim := rapid.SampledFrom([]int{32, 64, 80, 96, 128}).Draw(rt, "head")
	dims := rapid.SampledFrom([]int{headDim, headDim / 2, 20, 2}).Draw(rt, "dims")
	rope, err := NewRoPE(RoPEParams{NEOX: rapid.Bool().Draw(rt, "neox"), HeadDim: headDim, Dims: dims, Base: 10000})
	if err != nil {
		rt.Fatal(err)
	}
	heads := 2 * rapid.IntRange(1, 3).Draw(rt, "pairs of heads")
	refs := rapid.IntRange(1, 3).Draw(rt, "references")
	runs, cells := drawRuns(rt, refs)
	kv := rapid.SampledFrom(cacheTypes).Draw(rt, "type")
	trans := rapid.Bool().Draw(rt, "transposed")
	jobs := make([]LayerJob, 2)
	for i := range jobs {
		jobs[i] = drawJob(rt, rng, kv, trans, headDim*heads, refs, cells)
		if rapid.Bool().Draw(rt, "hadamard") {
			jobs[i].KRot = int32(headDim & -headDim)
		}
	}
	return jobs, runs, rope
}

const sourceCells = 40

// drawRuns fills rows in order, some left out, from anywhere in the references.
func drawRuns(rt *rapid.T, refs int) (runs []Run, cells int) {
	at := int32(0)
	for range rapid.IntRange(0, 8).Draw(rt, "runs") {
		at += int32(rapid.IntRange(0, 2).Draw(rt, "gap"))
		r := Run{Ref: rapid.IntRange(0, refs-1).Draw(rt, "ref"), Dst: at, Len: int32(rapid.IntRange(1, 9).Draw(rt, "len"))}
		r.Src = int32(rapid.IntRange(0, sourceCells-int(r.Len)).Draw(rt, "src"))
		r.Delta = int32(rapid.SampledFrom([]int{0, 0, 1, -1, 7, 5000, -131072}).Draw(rt, "delta"))
		at += r.Len
		runs = append(runs, r)
	}
	return runs, int(at) + 1
}

func drawJob(rt *rapid.T, rng *rand.Rand, kv KVType, trans bool, width, refs, cells int) LayerJob {
	row, err := kv.RowBytes(width)
	if err != nil {
		rt.Fatal(err)
	}
	values := cacheTypes
	if trans {
		values = []KVType{F32, F16, BF16}
	}
	v := drawType(rt, "value type", values, width)
	valueRow, _ := v.RowBytes(width)
	j := LayerJob{K: make([]byte, cells*row), KType: kv, KRow: int64(row), VType: v, DstCells: int64(cells)}
	if j.VTrans = trans; trans {
		j.VElem, j.VWidth = int64(valueRow/width), int64(width)
	} else {
		j.VRow = int64(valueRow)
	}
	j.V = make([]byte, cells*valueRow)
	for range refs {
		s := LayerSource{KType: kv, VType: v, VTrans: trans, Retyped: rapid.Bool().Draw(rt, "retyped")}
		if s.Retyped {
			s.KType = drawType(rt, "source keys", cacheTypes, width)
			if s.VTrans = rapid.Bool().Draw(rt, "source transposed"); s.VTrans {
				s.VType = drawType(rt, "source values", []KVType{F32, F16, BF16}, width)
			} else {
				s.VType = drawType(rt, "source values", cacheTypes, width)
			}
		}
		s.K = packedRows(rt, rng, s.KType, sourceCells, width)
		s.V = packedRows(rt, rng, s.VType, sourceCells, width)
		j.Sources = append(j.Sources, s)
		j.SrcCells = append(j.SrcCells, sourceCells)
	}
	return j
}

// drawType picks a type that rows of width elements can have.
func drawType(rt *rapid.T, label string, from []KVType, width int) KVType {
	return rapid.SampledFrom(from).Filter(func(t KVType) bool { _, err := t.RowBytes(width); return err == nil }).Draw(rt, label)
}

// rowsFailer is what packedRows needs of a test.
type rowsFailer interface{ Fatal(args ...any) }

func TestRowsGoWhereTheRunsSay(t *testing.T) {
	f := func(trans bool) {
		t.Helper()
		for _, k := range testKernels(t) {
			// Two references of 3 cells and a target of 4; a cell is 2 bytes of each.
			src := func(base byte) []byte { return []byte{base, base + 1, base + 2, base + 3, base + 4, base + 5} }
			j := LayerJob{K: make([]byte, 8), V: make([]byte, 8), KRow: 2, Sources: []LayerSource{{K: src(10), V: src(20)}, {K: src(30), V: src(40)}}}
			wantV := []byte{0, 0, 42, 43, 44, 45, 20, 21}
			if trans {
				j.VTrans, j.VElem, j.VWidth, j.DstCells, j.SrcCells = true, 1, 2, 4, []int64{3, 3}
				wantV = []byte{0, 41, 42, 20, 0, 44, 45, 23}
			} else {
				j.VRow = 2
			}
			runs := []Run{{Ref: 1, Src: 1, Dst: 1, Len: 2}, {Ref: 0, Src: 0, Dst: 3, Len: 1}}
			if err := k.Compose([]LayerJob{j}, runs, nil, 1); err != nil {
				t.Fatal(err)
			}
			if want := []byte{0, 0, 32, 33, 34, 35, 10, 11}; !bytes.Equal(j.K, want) {
				t.Errorf("%s: keys %v: expected %v", k.Name(), j.K, want)
			}
			if !bytes.Equal(j.V, wantV) {
				t.Errorf("%s: values %v: expected %v (transposed %v)", k.Name(), j.V, wantV, trans)
			}
		}
	}
	f(false)
	f(true)
}

func TestMovingThereAndBackChangesOnlyRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	f := func(kv KVType, neox bool, dims int, rot int32) {
		t.Helper()
		for _, k := range testKernels(t) {
			rope := testRoPE(t, neox, 64, dims)
			keys := packedRows(t, rng, kv, 5, 128)
			back := moveKeys(t, k, kv, moveKeys(t, k, kv, keys, 5, rope, 977, rot), 5, rope, -977, rot)
			if d := drift(unpacked(kv, keys), unpacked(kv, back)); d > 3*rounding[kv] {
				t.Errorf("%s %s neox=%v: %v off: expected at most %v", k.Name(), kv, neox, d, 3*rounding[kv])
			}
		}
	}
	for _, kv := range cacheTypes {
		f(kv, false, 64, 0)
		f(kv, true, 64, 0)
		f(kv, true, 32, 0)
		f(kv, false, 64, 64)
	}
}

func TestTwoMovesAreOne(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
		a := int32(rapid.IntRange(-5000, 5000).Draw(rt, "a"))
		b := int32(rapid.IntRange(-5000, 5000).Draw(rt, "b"))
		kv := rapid.SampledFrom(cacheTypes).Draw(rt, "type")
		rope := testRoPE(t, rapid.Bool().Draw(rt, "neox"), 64, 64)
		keys := packedRows(t, rng, kv, 3, 128)
		twice := moveKeys(t, GoKernels(), kv, moveKeys(t, GoKernels(), kv, keys, 3, rope, a, 0), 3, rope, b, 0)
		once := moveKeys(t, GoKernels(), kv, keys, 3, rope, a+b, 0)
		if d := drift(unpacked(kv, once), unpacked(kv, twice)); d > 3*rounding[kv] {
			rt.Fatalf("%s: %v off: expected at most %v", kv, d, 3*rounding[kv])
		}
	})
}

// TestMovedKeysAreThoseOfTheNewPosition compares with RoPE worked out in float64
// from the definition, at the old and at the new position.
func TestMovedKeysAreThoseOfTheNewPosition(t *testing.T) {
	f := func(neox bool) {
		t.Helper()
		const n = 64
		rope := testRoPE(t, neox, n, n)
		rng := rand.New(rand.NewPCG(3, 4))
		raw := randomRow(rng, n)
		at := func(pos float64) []byte {
			row := make([]float32, n)
			for i := range n / 2 {
				a, b := 2*i, 2*i+1
				if neox {
					a, b = i, i+n/2
				}
				sin, cos := math.Sincos(pos * math.Pow(10000, -2*float64(i)/n))
				x, y := float64(raw[a]), float64(raw[b])
				row[a], row[b] = float32(x*cos-y*sin), float32(x*sin+y*cos)
			}
			out := make([]byte, 4*n)
			goQuantize(F32, row, out)
			return out
		}
		for _, k := range testKernels(t) {
			moved := moveKeys(t, k, F32, at(1000), 1, rope, 345, 0)
			if d := drift(unpacked(F32, at(1345)), unpacked(F32, moved)); d > 1e-4 {
				t.Errorf("%s neox=%v: %v off", k.Name(), neox, d)
			}
		}
	}
	f(false)
	f(true)
}

func TestElementsThatDoNotTurnStayBitForBit(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	for _, kv := range cacheTypes {
		for _, k := range testKernels(t) {
			keys := packedRows(t, rng, kv, 2, 128)
			moved := moveKeys(t, k, kv, keys, 2, testRoPE(t, true, 64, 32), 11, 0)
			half := len(keys) / 8 // 32 elements
			for h := 1; h < 8; h += 2 {
				if !bytes.Equal(keys[h*half:(h+1)*half], moved[h*half:(h+1)*half]) {
					t.Errorf("%s %s: elements beyond the rotary dimensions changed", k.Name(), kv)
				}
			}
		}
	}
}

func TestHadamardTurnedKeysMoveAsThePlainOnesDo(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	rope := testRoPE(t, true, 64, 64)
	plain := packedRows(t, rng, F32, 1, 64)
	turned := func(b []byte) []byte {
		row, out := unpacked(F32, b), make([]byte, len(b))
		hadamard(row, 64)
		goQuantize(F32, row, out)
		return out
	}
	for _, k := range testKernels(t) {
		want := turned(moveKeys(t, k, F32, plain, 1, rope, 123, 0))
		got := moveKeys(t, k, F32, turned(plain), 1, rope, 123, 64)
		if d := drift(unpacked(F32, want), unpacked(F32, got)); d > 1e-5 {
			t.Errorf("%s: %v off", k.Name(), d)
		}
	}
}

func TestComposeRefuses(t *testing.T) {
	rope := testRoPE(t, false, 4, 4)
	valid := func() (LayerJob, []Run) {
		return LayerJob{
			K: make([]byte, 32), V: make([]byte, 32), KType: F16, VType: F16, KRow: 8, VRow: 8,
			Sources: []LayerSource{{K: make([]byte, 24), V: make([]byte, 24)}},
		}, []Run{{Src: 1, Dst: 2, Len: 2, Delta: 1}}
	}
	transposed := func(j *LayerJob) {
		j.VTrans, j.VRow, j.VElem, j.VWidth, j.DstCells, j.SrcCells = true, 0, 2, 4, 4, []int64{3}
	}
	f := func(change func(j *LayerJob, runs []Run), rope *RoPE, want string) {
		t.Helper()
		for _, k := range testKernels(t) {
			j, runs := valid()
			change(&j, runs)
			err := k.Compose([]LayerJob{j}, runs, rope, 1)
			switch {
			case want == "" && err != nil:
				t.Errorf("%s: %v: expected no error", k.Name(), err)
			case want != "" && (!errors.Is(err, ErrKernelInput) || !strings.Contains(err.Error(), want)):
				t.Errorf("%s: error %v: expected %q", k.Name(), err, want)
			}
		}
	}
	f(func(*LayerJob, []Run) {}, rope, "")
	f(func(j *LayerJob, _ []Run) { transposed(j) }, rope, "")
	f(func(*LayerJob, []Run) {}, nil, "cannot move")
	f(func(*LayerJob, []Run) {}, &RoPE{HeadDim: 4, Dims: 4}, "0 frequencies")
	f(func(*LayerJob, []Run) {}, &RoPE{HeadDim: 3, Dims: 2, Freqs: []float32{1}}, "whole heads of 3")
	f(func(j *LayerJob, _ []Run) { j.KType = 99 }, rope, "type 99")
	f(func(j *LayerJob, _ []Run) { j.KRow = 7 }, rope, "7 bytes")
	f(func(j *LayerJob, _ []Run) { j.KRot = 3 }, rope, "blocks of 3")
	f(func(j *LayerJob, _ []Run) { j.KRow = 0 }, rope, "0 bytes")
	f(func(_ *LayerJob, r []Run) { r[0].Ref = 1 }, rope, "reference 1")
	f(func(_ *LayerJob, r []Run) { r[0].Ref = -1 }, rope, "Ref:-1")
	f(func(_ *LayerJob, r []Run) { r[0].Dst = 3 }, rope, "leaves the keys")
	f(func(_ *LayerJob, r []Run) { r[0].Src = 2 }, rope, "leaves the keys")
	f(func(_ *LayerJob, r []Run) { r[0].Src = math.MaxInt32 }, rope, "Src:2147483647")
	f(func(_ *LayerJob, r []Run) { r[0].Len = 0 }, rope, "Len:0")
	f(func(j *LayerJob, _ []Run) { j.V = j.V[:31] }, rope, "leaves the values")
	f(func(j *LayerJob, _ []Run) { transposed(j); j.VElem = 3 }, rope, "3 bytes an element")
	f(func(j *LayerJob, _ []Run) { transposed(j); j.DstCells = 5 }, rope, "4 x 5 x 2")
	f(func(j *LayerJob, _ []Run) { transposed(j); j.SrcCells[0] = 4 }, rope, "reference 0 has 24 bytes")
	f(func(j *LayerJob, _ []Run) { transposed(j); j.VWidth = math.MaxInt64 }, rope, "from 0 up")

	retyped := func(j *LayerJob, k, v KVType, trans bool) {
		j.Sources[0].Retyped, j.Sources[0].KType, j.Sources[0].VType, j.Sources[0].VTrans = true, k, v, trans
		j.SrcCells = []int64{3}
	}
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, BF16, false) }, rope, "")
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, F16, true) }, rope, "")
	f(func(j *LayerJob, _ []Run) { transposed(j); retyped(j, BF16, F16, false) }, rope, "")
	f(func(j *LayerJob, _ []Run) { retyped(j, 99, F16, false) }, rope, "type 99")
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, Q4_K, false) }, rope, "expected a cache type")
	f(func(j *LayerJob, _ []Run) { retyped(j, Q8_0, F16, false) }, rope, "multiple of 32")
	f(func(j *LayerJob, _ []Run) { retyped(j, F32, F16, false) }, rope, "leaves the keys")
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, F32, false) }, rope, "leaves the values")
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, F16, true); j.SrcCells[0] = 4 }, rope, "4 x 4 x 2")
	f(func(j *LayerJob, _ []Run) { retyped(j, F16, F16, true); j.SrcCells = nil }, rope, "cells of 0 references")

	j, _ := valid()
	twice := []Run{{Dst: 2, Len: 2}, {Dst: 1, Len: 2}}
	if err := GoKernels().Compose([]LayerJob{j}, twice, nil, 1); !errors.Is(err, ErrKernelInput) {
		t.Errorf("two runs on one row: error %v: expected one", err)
	}
}

// TestPackedValues checks each type against blocks worked out by hand from ggml's
// description of them.
func TestPackedValues(t *testing.T) {
	f := func(kv KVType, block []byte, want map[int]float32) {
		t.Helper()
		elems, size := kv.BlockSize()
		if len(block) != size {
			t.Fatalf("%s: block of %d bytes: expected %d", kv, len(block), size)
		}
		for _, k := range testKernels(t) {
			got := make([]float32, elems)
			if err := k.Dequantize(kv, block, got); err != nil {
				t.Fatal(err)
			}
			for i, v := range want {
				if got[i] != v {
					t.Errorf("%s %s: value %d is %v: expected %v", k.Name(), kv, i, got[i], v)
				}
			}
		}
	}
	two, one := []byte{0, 0x40}, []byte{0, 0x3c}
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	zeros := func(n int) []byte { return make([]byte, n) }
	fill := func(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }
	f(F32, []byte{0, 0, 0x80, 0x3f}, map[int]float32{0: 1})
	f(F16, []byte{1, 0}, map[int]float32{0: 0x1p-24})
	f(BF16, []byte{0x80, 0xbf}, map[int]float32{0: -1})
	f(Q4_0, join(two, []byte{0x9f}, zeros(15)), map[int]float32{0: 14, 16: 2, 1: -16})
	f(Q4_1, join(two, one, []byte{0x9f}, zeros(15)), map[int]float32{0: 31, 16: 19, 1: 1})
	f(Q5_0, join(two, []byte{1, 0, 2, 0}, []byte{0x9f}, zeros(15)), map[int]float32{0: 30, 16: -14, 17: 0, 1: -32})
	f(Q5_1, join(two, one, []byte{1, 0, 2, 0}, []byte{0x9f}, zeros(15)), map[int]float32{0: 63, 16: 19, 17: 33, 1: 1})
	f(Q8_0, join(two, []byte{0x80, 127}, zeros(30)), map[int]float32{0: -256, 1: 254, 2: 0})
	f(IQ4NL, join(two, []byte{0xf0}, zeros(15)), map[int]float32{0: -254, 16: 226, 17: -254})
	f(IQ4XS, join(two, []byte{2, 0}, []byte{1, 0, 0, 0}, []byte{0xf0}, zeros(127)), map[int]float32{0: 2 * 1 * -127, 16: 2 * 1 * 113, 32: 2 * -32 * -127})
	f(Q2_K, join(fill(0x21, 16), []byte{0xe4}, zeros(63), two, one), map[int]float32{0: -2, 32: 0, 64: 2, 96: 4, 128: -2})
	f(Q3_K, join([]byte{1}, zeros(31), []byte{0xe4}, zeros(63), fill(1, 8), fill(0xaa, 4), two), map[int]float32{
		0: 2 * 1 * 0, 32: 2 * (1 - 4), 64: 2 * (2 - 4), 96: 2 * (3 - 4), 128: -2 * 32 * 0 * 1, 255: 0,
	})
	f(Q4_K, join(two, one, []byte{3, 0, 0, 0, 5, 0, 0, 0, 0x21, 0, 0, 0}, []byte{0x4f}, zeros(127)), map[int]float32{0: 2*3*15 - 5, 32: 0, 128: -2})
	f(Q5_K, join(two, one, []byte{3, 1, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0}, []byte{3}, zeros(31), []byte{0x4f}, zeros(127)), map[int]float32{0: 2*3*31 - 5, 32: 2 * 1 * 20, 1: -5})
	f(Q6_K, join([]byte{0x4f}, zeros(127), []byte{0x1b}, zeros(63), fill(1, 16), two), map[int]float32{0: 2 * (0x3f - 32), 32: 2 * (0x20 - 32), 64: 2 * (0x14 - 32), 96: 2 * -32})
}

func TestNativeAndGoUnpackAlike(t *testing.T) {
	native := nativeKernels(t)
	if native == nil {
		t.Skip("SKIPPED: no native library")
	}
	rng := rand.New(rand.NewPCG(9, 10))
	for kv := range typeInfos {
		elems, size := kv.BlockSize()
		for range 50 {
			block := make([]byte, 3*size)
			for i := range block {
				block[i] = byte(rng.Uint32())
			}
			a, b := make([]float32, 3*elems), make([]float32, 3*elems)
			if err := errors.Join(GoKernels().Dequantize(kv, block, a), native.Dequantize(kv, block, b)); err != nil {
				t.Fatal(err)
			}
			for i := range a {
				if a[i] != b[i] && !(isNaN(a[i]) && isNaN(b[i])) {
					t.Fatalf("%s: value %d: Go %v, native %v", kv, i, a[i], b[i])
				}
			}
		}
	}
}

func isNaN(v float32) bool { return v != v }

func TestPackingKeepsValuesWithinTheTypesRounding(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for _, kv := range cacheTypes {
		row := randomRow(rng, 64)
		size, _ := kv.RowBytes(64)
		packed := make([]byte, size)
		goQuantize(kv, row, packed)
		if d := drift(row, unpacked(kv, packed)); d > rounding[kv] {
			t.Errorf("%s: %v off: expected at most %v", kv, d, rounding[kv])
		}
	}
}

func TestHalvesSurviveWideningAndNarrowing(t *testing.T) {
	for h := range 1 << 16 {
		h := uint16(h)
		if f := f16ToF32(h); !isNaN(f) && f32ToF16(f) != h {
			t.Fatalf("f16 %#04x became %#04x", h, f32ToF16(f))
		}
		if f := bf16ToF32(h); !isNaN(f) && f32ToBF16(f) != h {
			t.Fatalf("bf16 %#04x became %#04x", h, f32ToBF16(f))
		}
	}
}

func TestHalvesRoundToNearestEven(t *testing.T) {
	f := func(v float32, want uint16) {
		t.Helper()
		if got := f32ToF16(v); got != want {
			t.Errorf("%v became %#04x: expected %#04x", v, got, want)
		}
	}
	f(1+0x1p-11, 0x3c00)
	f(1+0x1.8p-10, 0x3c02)
	f(65519, 0x7bff)
	f(65520, 0x7c00)
	f(0x1p-25, 0)
	f(0x1.8p-24, 2)
	f(float32(math.Inf(-1)), 0xfc00)
}

func TestDequantizeRefuses(t *testing.T) {
	f := func(kv KVType, bytes, values int, want string) {
		t.Helper()
		for _, k := range testKernels(t) {
			err := k.Dequantize(kv, make([]byte, bytes), make([]float32, values))
			if !errors.Is(err, ErrKernelInput) || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: error %v: expected %q", k.Name(), err, want)
			}
		}
	}
	f(77, 4, 1, "type 77")
	f(Q8_0, 34, 31, "multiple of 32")
	f(Q8_0, 33, 32, "expected 34")
}

func TestSignaturesAreTheSameEverywhere(t *testing.T) {
	native := nativeKernels(t)
	if native == nil {
		t.Skip("SKIPPED: no native library")
	}
	f := func(dim, bits, n int, placed bool) {
		t.Helper()
		rng := rand.New(rand.NewPCG(uint64(dim), uint64(bits)))
		rows, planes := randomRow(rng, n*dim), randomRow(rng, bits*dim)
		var pos []int32
		var freqs []float32
		if placed {
			freqs = testRoPE(t, false, dim, dim).Freqs
			for i := range n {
				pos = append(pos, int32(3*i-20))
			}
		}
		fromGo, fromC := make([]uint64, n*bits/64), make([]uint64, n*bits/64)
		err := errors.Join(
			GoKernels().Signatures(rows, dim, pos, freqs, planes, bits, fromGo, 2),
			native.Signatures(rows, dim, pos, freqs, planes, bits, fromC, 2))
		if err != nil {
			t.Fatal(err)
		}
		for i := range fromGo {
			if fromGo[i] != fromC[i] {
				t.Fatalf("dim %d, row %d: Go %x, native %x", dim, i/(bits/64), fromGo[i], fromC[i])
			}
		}
	}
	f(64, 64, 10, false)
	f(576, 128, 300, true)
	f(30, 64, 20, true)
	f(7, 64, 5, false)
	f(64, 64, 0, true)
}

func TestSignatureBitsAreSignsOfProducts(t *testing.T) {
	const dim, bits = 48, 64
	rng := rand.New(rand.NewPCG(13, 14))
	row, planes := randomRow(rng, dim), randomRow(rng, bits*dim)
	for _, k := range testKernels(t) {
		out := make([]uint64, 1)
		if err := k.Signatures(row, dim, nil, nil, planes, bits, out, 1); err != nil {
			t.Fatal(err)
		}
		for b := range bits {
			var sum float64
			for i := range dim {
				sum += float64(row[i]) * float64(planes[b*dim+i])
			}
			if set := out[0]>>b&1 == 1; set != (sum > 0) {
				t.Errorf("%s: bit %d is %v for a product of %v", k.Name(), b, set, sum)
			}
		}
	}
}

func TestSignaturesRefuse(t *testing.T) {
	f := func(rows, dim, pos, freqs, planes, bits, out int, want string) {
		t.Helper()
		var p []int32
		if pos > 0 {
			p = make([]int32, pos)
		}
		err := GoKernels().Signatures(make([]float32, rows), dim, p, make([]float32, freqs), make([]float32, planes), bits, make([]uint64, out), 1)
		if !errors.Is(err, ErrKernelInput) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: expected %q", err, want)
		}
	}
	f(7, 2, 0, 0, 128, 64, 4, "whole rows")
	f(8, 0, 0, 0, 128, 64, 4, "whole rows")
	f(8, 2, 0, 0, 128, 63, 4, "63 bits")
	f(8, 2, 0, 0, 127, 64, 4, "64 x 2")
	f(8, 2, 0, 0, 128, 64, 3, "expected 4")
	f(8, 2, 3, 1, 128, 64, 4, "3 positions")
	f(8, 2, 4, 2, 128, 64, 4, "2 frequencies")
}

func TestLoadKernelsNamesPathAndVersion(t *testing.T) {
	f := func(path, want string) {
		t.Helper()
		if _, err := LoadKernels(path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v: expected %q", err, want)
		}
	}
	missing := filepath.Join(t.TempDir(), "missing.so")
	f(missing, missing)
	garbage := filepath.Join(t.TempDir(), "garbage.so")
	if err := os.WriteFile(garbage, binary.LittleEndian.AppendUint64(nil, 1), 0o600); err != nil {
		t.Fatal(err)
	}
	f(garbage, garbage)
	f("", libraryName)
}

// FuzzComposeRuns feeds any run to a small valid job: it is refused, or it stays
// within the slices.
func FuzzComposeRuns(f *testing.F) {
	f.Add(0, int32(0), int32(0), int32(1), int32(3))
	f.Add(-1, int32(5), int32(1<<30), int32(1<<30), int32(-1<<31))
	all := testKernels(f)
	rope := testRoPE(f, true, 4, 4)
	f.Fuzz(func(t *testing.T, ref int, src, dst, length, delta int32) {
		for _, k := range all {
			j := LayerJob{
				K: make([]byte, 32), V: make([]byte, 32), KType: F16, VType: F16, KRow: 8, VRow: 8,
				Sources: []LayerSource{{K: make([]byte, 24), V: make([]byte, 24)}},
			}
			fits := ref == 0 && src >= 0 && dst >= 0 && length > 0 && int64(src)+int64(length) <= 3 && int64(dst)+int64(length) <= 4
			err := k.Compose([]LayerJob{j}, []Run{{ref, src, dst, length, delta}}, rope, 1)
			if (err == nil) != fits {
				t.Errorf("%s: error %v for a run that fits: %v", k.Name(), err, fits)
			}
		}
	})
}
