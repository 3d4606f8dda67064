package bridge

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAgentShiftsWhatIsOffAlike: where a passage's keys, turned back to position 0, and
// values are off by the same in every cell, a few samples tell by how much, and the
// cache ends as if the server had computed it.
func TestAgentShiftsWhatIsOffAlike(t *testing.T) {
	f := func(name string, model tinymodel.Options, o lab.BackendOptions, tolerance float64) {
		t.Run(name, func(t *testing.T) {
			model.Layers = 4
			o.Model, o.Context = tinymodel.Make(t, model), 4096
			testShifts(t, newKitchen(t, o), tolerance)
		})
	}
	f("NORM pairs", tinymodel.Options{}, lab.BackendOptions{}, 5e-3)
	f("NEOX pairs", tinymodel.Options{Arch: "qwen2"}, lab.BackendOptions{}, 5e-3)
	f("V transposed", tinymodel.Options{}, lab.BackendOptions{FlashAttention: "off"}, 5e-3)
	f("q8_0", tinymodel.Options{}, lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"}, 3e-2)
}

func testShifts(t *testing.T, k *kitchen, tolerance float64) {
	const n, from, to = 500, 100, 420
	tokens := randomTokens(n, 1)
	want := k.cold("want", tokens)
	ref := k.spoilt("spoilt", want, from, to)
	recipe := func() *Recipe {
		return &Recipe{Tokens: tokens, Depth: make([]uint16, n), Runs: []Run{{Len: n}}, Layout: &want.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE,
			Passage: make([]uint16, n), Sample: make([]bool, n)}
	}
	off := func(r *Recipe) float64 {
		k.cook(r)
		keys, values := k.off(k.save("got", 1), want)
		t.Logf("keys off by %.2g, values by %.2g", keys, values)
		return max(keys, values)
	}
	r := recipe()
	for i := from; i < to; i++ {
		if r.Passage[i] = 1; i%32 == 16 {
			r.Sample[i], r.Depth[i] = true, 4
		}
	}
	unshifted := recipe()
	copy(unshifted.Depth, r.Depth)
	if before := off(unshifted); before < 5*tolerance {
		t.Fatalf("without a shift the cache is off by %.2g: the test shows nothing", before)
	}
	if after := off(r); after > tolerance {
		t.Errorf("with the shift the cache is off by %.2g: expected at most %.2g", after, tolerance)
	}
}

// spoilt is a state in which the same is added to the keys, as they would be at
// position 0, and the values of the cells from one to another, in all layers but the
// first, whose keys and values hang on nothing before them.
func (k *kitchen) spoilt(name string, s *State, from, to int) *State {
	k.t.Helper()
	l := &s.Layout
	pos := make([]int32, len(s.Tokens))
	for i := range pos {
		pos[i] = int32(i)
	}
	path := filepath.Join(k.lab.SlotDir, name)
	w, err := CreateState(path, l, l.Stream, s.Tokens, pos)
	if err != nil {
		k.t.Fatal(err)
	}
	jobs, err := w.Jobs([]*State{s})
	if err != nil {
		k.t.Fatal(err)
	}
	if err := GoKernels().Compose(jobs, []Run{{Len: int32(len(pos))}}, k.model.RoPE, 1); err != nil {
		k.t.Fatal(err)
	}
	for i := range jobs[1:] {
		k.spoil(l, &l.Layers[i+1], jobs[i+1].K, jobs[i+1].V, len(pos), from, to)
	}
	if err := w.Close(); err != nil {
		k.t.Fatal(err)
	}
	return k.open(name)
}

func (k *kitchen) spoil(l *Layout, y *LayerLayout, keys, values []byte, cells, from, to int) {
	r := k.model.RoPE
	for c := from; c < to; c++ {
		row := keys[c*int(y.KRow) : (c+1)*int(y.KRow)]
		k.change(y.KType, row, int(l.NRotK), func(x []float32) {
			for head := 0; head < len(x); head += r.HeadDim {
				for i, freq := range r.Freqs {
					a, b := head+2*i, head+2*i+1
					if r.NEOX {
						a, b = head+i, head+i+r.Dims/2
					}
					sin, cos := math.Sincos(float64(c) * float64(freq))
					x[a] += float32(.3*cos - .5*sin)
					x[b] += float32(.3*sin + .5*cos)
				}
			}
		})
		if !l.VTrans {
			k.change(y.VType, values[c*int(y.VRow):(c+1)*int(y.VRow)], int(l.NRotV), func(x []float32) {
				for i := range x {
					x[i] += .2
				}
			})
			continue
		}
		for i := range int(y.VWidth) {
			at := (i*cells + c) * int(y.VElem)
			k.change(y.VType, values[at:at+int(y.VElem)], 0, func(x []float32) { x[0] += .2 })
		}
	}
}

// change applies f to a row of f16 or q8_0, turned in Hadamard blocks.
func (k *kitchen) change(t KVType, row []byte, blocks int, f func([]float32)) {
	k.t.Helper()
	x, err := floats(GoKernels(), t, row)
	if err != nil {
		k.t.Fatal(err)
	}
	turn := func() {
		if blocks > 1 {
			hadamard(x, blocks)
		}
	}
	turn()
	f(x)
	turn()
	if t == Q8_0 {
		for i := 0; i < len(x); i += 32 {
			packQ8_0(x[i:i+32], row[i/32*34:])
		}
		return
	}
	for i, v := range x {
		putHalf(row[2*i:], v)
	}
}
