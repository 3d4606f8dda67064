package bridge

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// A server that shares cells between slots may save them in any order.
var shuffled = []int32{3, 0, 4, 1, 2}

// newState returns the bytes of a state of layout l with cells at those positions, and
// the writer that fills their rows.
func newState(l *Layout, pos []int32) ([]byte, *StateWriter) {
	m := &mapping{data: make([]byte, l.FileBytes(len(pos), len(pos)))}
	return m.data, newStateWriter(m, l, 0, make([]int32, len(pos)), pos)
}

// noise is a state of n cells with random floats as keys and values.
func noise(t *testing.T, l *Layout, n int) *State {
	t.Helper()
	pos := make([]int32, n)
	for i := range pos {
		pos[i] = int32(i)
	}
	data, w := newState(l, pos)
	r := rand.New(rand.NewPCG(1, 2))
	for i := range w.Layers() {
		for _, half := range [][]byte{w.Layer(i).K, w.Layer(i).V} {
			for ; len(half) > 0; half = half[4:] {
				binary.LittleEndian.PutUint32(half, math.Float32bits(float32(r.NormFloat64())))
			}
		}
	}
	return parsed(t, data)
}

// gathered are the bytes of a state with cells in shuffled order, the runs of src as
// their rows.
func gathered(t *testing.T, src *State, runs []Run, rope *RoPE) []byte {
	t.Helper()
	data, w := newState(&src.Layout, shuffled)
	jobs, err := w.Jobs([]*State{src})
	if err != nil {
		t.Fatal(err)
	}
	if err := GoKernels().Compose(jobs, runs, rope, 1); err != nil {
		t.Fatal(err)
	}
	return data
}

func parsed(t *testing.T, data []byte) *State {
	t.Helper()
	s, err := parseState(data)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestRoPEIsCheckedByPositionWhateverTheOrderOfCells(t *testing.T) {
	rope, err := NewRoPE(RoPEParams{HeadDim: 64, Dims: 64, Base: 10000})
	if err != nil {
		t.Fatal(err)
	}
	one := noise(t, testLayout(4, true, false, 1, F32, F32), 1)
	var runs []Run
	for row, pos := range shuffled {
		runs = append(runs, Run{Dst: int32(row), Len: 1, Delta: pos})
	}
	turns, err := nearTurning(GoKernels(), parsed(t, gathered(t, one, runs, rope)), rope)
	if err != nil || turns.off() > 0 {
		t.Errorf("%d pairs are off (%v), expected none", turns.off(), err)
	}
}

func TestTheAgentIsComparedByPositionWhateverTheOrderOfCells(t *testing.T) {
	rope, err := NewRoPE(RoPEParams{HeadDim: 64, Dims: 64, Base: 10000})
	if err != nil {
		t.Fatal(err)
	}
	f := func(columns bool) {
		t.Helper()
		want := noise(t, testLayout(4, true, columns, 1, F32, F32), len(shuffled))
		compare := func(runs []Run) error {
			path := filepath.Join(t.TempDir(), "state")
			if err := os.WriteFile(path, gathered(t, want, runs, nil), 0o600); err != nil {
				t.Fatal(err)
			}
			return Prober{Kernels: GoKernels()}.compare(path, want, rope)
		}
		var runs []Run
		for row, pos := range shuffled {
			runs = append(runs, Run{Src: pos, Dst: int32(row), Len: 1})
		}
		if err := compare(runs); err != nil {
			t.Errorf("columns %t: %v", columns, err)
		}
		if compare([]Run{{Len: int32(len(shuffled))}}) == nil {
			t.Errorf("columns %t: other cells compare as equal", columns)
		}
	}
	f(false)
	f(true)
}
