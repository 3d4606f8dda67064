package bridge

import (
	"errors"
	"math"
	"path/filepath"
	"slices"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestARehearsedOpeningIsAsItIsBehindTheRest rehearses on a real server and compares
// with what that computes of the prompt in the other order.
func TestARehearsedOpeningIsAsItIsBehindTheRest(t *testing.T) {
	const keep, from, to, end, n = 20, 4, 140, 560, 600
	k := newKitchen(t, lab.BackendOptions{Model: tiny(t, tinymodel.Options{}), Context: 2048})
	store := openStore(t, k.lab.SlotDir, StoreOptions{})
	tokens := randomTokens(n, 3)
	layout := k.cold("prompt", tokens).Layout
	fl := &Filler{Backend: k.backend, Kernels: GoKernels(), Store: store, Layout: &layout, RoPE: k.model.RoPE}
	reserve := func() *Pending {
		t.Helper()
		p, err := store.Reserve(layout.FileBytes(n, n), Meta{}, 1)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	commit := func(p *Pending) *Reference {
		t.Helper()
		ref, err := p.Commit()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(ref.Release)
		return ref
	}
	p := reserve()
	if _, _, err := k.backend.Save(t.Context(), 0, p.File()); err != nil {
		t.Fatal(err)
	}
	r := Rehearsal{Ref: commit(p), Keep: keep, From: from, To: to, End: end, Threads: 2}

	p = reserve()
	left := 2
	r.GoOn = func() bool { left--; return left >= 0 }
	if err := fl.Rehearse(t.Context(), r, p); !errors.Is(err, ErrInterrupted) {
		t.Fatalf("broken off after two slices: error %v", err)
	}
	r.GoOn = func() bool { return true }
	if err := fl.Rehearse(t.Context(), r, p); err != nil {
		t.Fatal(err)
	}
	longer := commit(p).State
	if want := slices.Concat(tokens, tokens[from:to]); !slices.Equal(longer.Tokens, want) || r.Tokens() != len(want) {
		t.Fatalf("the longer reference has %d tokens: expected the prompt and its opening, %d", len(longer.Tokens), len(want))
	}

	order, at := r.order()
	behind := k.cold("order", order)
	last := len(layout.Layers) - 1
	once, again := k.moved("once", longer, from, at, to-from), k.moved("again", longer, n, at, to-from)
	if got := keyDistance(t, again, behind, 0, at, to-from); got > 2e-3 {
		t.Errorf("the first layer's keys of the copy are off by %.2g: expected rounding", got)
	}
	before, after := keyDistance(t, once, behind, last, at, to-from), keyDistance(t, again, behind, last, at, to-from)
	t.Logf("last layer's keys off by %.3g as they opened the prompt, by %.3g in the copy", before, after)
	if before < .01 || after > before/2 {
		t.Errorf("the last layer's keys are off by %.3g in the copy, by %.3g where they opened the prompt: expected at most half", after, before)
	}
}

// moved is a state with n cells of s from position src on, moved to position at.
func (k *kitchen) moved(name string, s *State, src, at, n int) *State {
	k.t.Helper()
	pos := make([]int32, n)
	for i := range pos {
		pos[i] = int32(at + i)
	}
	w, err := CreateState(filepath.Join(k.lab.SlotDir, name), &s.Layout, 1, make([]int32, at+n), pos)
	if err != nil {
		k.t.Fatal(err)
	}
	jobs, err := w.Jobs([]*State{s})
	if err != nil {
		k.t.Fatal(err)
	}
	if err := GoKernels().Compose(jobs, []Run{{Src: int32(src), Len: int32(n), Delta: int32(at - src)}}, k.model.RoPE, 2); err != nil {
		k.t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		k.t.Fatal(err)
	}
	return k.open(name)
}

// keyDistance is the distance of the keys of n positions from at on in a and b, as a
// share of their length.
func keyDistance(t *testing.T, a, b *State, layer, at, n int) float64 {
	t.Helper()
	var off, all float64
	for i := range n {
		x, y := keyRow(t, a, layer, int32(at+i)), keyRow(t, b, layer, int32(at+i))
		for j := range x {
			off += float64(x[j]-y[j]) * float64(x[j]-y[j])
			all += float64(y[j]) * float64(y[j])
		}
	}
	return math.Sqrt(off / all)
}
