package bridge

import (
	"context"
	"errors"
	"fmt"
	"math"
	"math/cmplx"
	"path/filepath"
	"slices"
)

// Whether the server's keys turn as the model file's RoPE says, pair by pair. Flags of the server
// can have it otherwise, and those of YaRN leave the fast pairs alone: the slow ones, which hardly
// turn over the probe's prompt, show it thousands of positions away.

const (
	// turnTokens are compared over one distance, since what packing does to a key differs from
	// position to position, and so cancels out.
	turnTokens = 16
	// farthest is how far apart keys are compared at most. The server's own angles, which are
	// floats, are off by hundredths from there on.
	farthest = 1 << 15
	// farToken is the one of repeated's that stands before those far away. No other prompt of
	// the probe begins with it, so that no cache of the server's makes anything of its cells.
	farToken = 20
)

const (
	// turnError is how far off a pair may be, as a share of its length: an angle in radians.
	// 16-bit keys cost a quarter of it, bf16, or less.
	turnError = 0.01
	// computeError is what products in batches of two sizes may differ by on a GPU, as a share
	// of what a row's pairs measure on the average.
	computeError = 0.002
	// packedShare of what packing costs a pair of one key is more than it costs turnTokens:
	// twice what it cost at most on SmolLM2 and Qwen2.5 with keys of 4 to 8 bits.
	packedShare = 3
	// angleError is what the server's floats, on a GPU by quick approximations, cost of an
	// angle.
	angleError = 1e-5
	// One pair in strayPairs may be off all the same where packed keys are not
	// Hadamard-rotated: packing then makes of slow pairs the same error at each position.
	strayPairs = 16
	// turnStep tells apart turns that are not the model's, in radians.
	turnStep = 0.25
)

// pairTurn compares the server's rotation of one RoPE pair with the rotation expected from
// the model file: gain is their quotient, 1 if equal.
type pairTurn struct {
	gain complex128
	// slack is how far from 1 rounding may take the gain.
	slack float64
}

// turning holds the comparisons of all pairs, over a distance in positions.
type turning struct {
	over   int32
	pairs  []pairTurn
	strays int // pairs that may be off
}

// other reports whether the server rotates keys by another RoPE than the model file's.
func (t *turning) other() bool { return t.off() > t.strays }

// off counts the pairs that rounding does not explain.
func (t *turning) off() (n int) {
	for _, p := range t.pairs {
		if !(cmplx.Abs(p.gain-1) <= p.slack) {
			n++
		}
	}
	return n
}

// steps are the turns in coarse steps: what stays the same from start to start.
func (t *turning) steps() []int {
	out := make([]int, len(t.pairs))
	for i, p := range t.pairs {
		out[i] = int(math.Round(cmplx.Phase(p.gain) / turnStep))
	}
	return out
}

// turn has out say whether keys turn by the model's RoPE. s is what the server saved of the
// probe's prompt, files are two that it may use. The error is ErrTaken.
func (p Prober) turn(ctx context.Context, out *Probed, s *State, files []string) error {
	if p.Model == nil || p.Model.RoPE == nil {
		out.Why = "the model's RoPE settings are not known"
		return nil
	}
	if err := s.Layout.Movable(); err != nil {
		out.Why = err.Error()
		return nil
	}
	near, err := nearTurning(p.Kernels, s, p.Model.RoPE)
	if err != nil {
		out.Why = err.Error()
		return nil
	}
	far, err := p.farTurning(ctx, s, files)
	switch {
	case errors.Is(err, ErrTaken):
		return err
	case err != nil:
		out.NotFar = err.Error()
	}
	for _, t := range []turning{far, near} {
		if t.other() {
			out.Why = fmt.Sprintf("the server turns keys by another RoPE than the model file says (--rope-..., --yarn-...): %d of %d pairs are off over %d positions: nothing that moved is shared", t.off(), len(t.pairs), t.over)
			out.turns = fmt.Sprint(near.steps(), far.steps())
			return nil
		}
	}
	out.RoPE = p.Model.RoPE
	return nil
}

// nearTurning compares the first of the tokens that s begins with, all the same, with the last.
func nearTurning(k *Kernels, s *State, rope *RoPE) (turning, error) {
	alike := slices.IndexFunc(s.Tokens, func(t int32) bool { return t != s.Tokens[0] })
	if alike < 0 {
		alike = len(s.Tokens)
	}
	n := int32(min(turnTokens, alike/2))
	return compareTurns(k, rope, stretch{s, 0, n}, stretch{s, int32(alike) - n, n})
}

// farTurning compares the keys of the probe's token at the start of s with its keys behind as
// long a prompt as a slot has room for. The result is zero if that prompt would be no longer
// than the probe's own.
func (p Prober) farTurning(ctx context.Context, s *State, files []string) (turning, error) {
	at := min(farthest, p.Props.Context-turnTokens-1)
	if at <= probeTokens {
		return turning{}, nil
	}
	before := p.repeated(farToken, at)
	if err := writeEnds(files[0], p.Kernels, s, before); err != nil {
		return turning{}, err
	}
	if err := p.continued(ctx, files, before); err != nil {
		return turning{}, err
	}
	far, err := OpenState(files[1])
	if err != nil {
		return turning{}, err
	}
	defer far.Close()
	if taken(far, slices.Concat(before, p.repeated(0, turnTokens))) {
		return turning{}, ErrTaken
	}
	return compareTurns(p.Kernels, p.Model.RoPE, stretch{s, 0, turnTokens}, stretch{far, int32(at), turnTokens})
}

// writeEnds writes a state of the tokens with two cells, for the first and the last token: the
// server continues behind the last. They hold the first cells of s, whose content does not
// affect the first layer's keys of later tokens.
func writeEnds(path string, k *Kernels, s *State, tokens []int32) error {
	w, err := CreateState(path, &s.Layout, 0, tokens, []int32{0, int32(len(tokens) - 1)})
	if err != nil {
		return err
	}
	defer w.Close()
	jobs, err := w.Jobs([]*State{s})
	if err != nil {
		return err
	}
	return k.Compose(jobs, []Run{{Len: 2}}, nil, 1)
}

// continued has the server compute the probe's token behind the state of those tokens in the
// first file, and save the whole to the second.
func (p Prober) continued(ctx context.Context, files []string, tokens []int32) error {
	if err := p.Backend.Erase(ctx, p.Slot); err != nil {
		return err
	}
	if _, err := p.Backend.Restore(ctx, p.Slot, filepath.Base(files[0])); err != nil {
		return err
	}
	if err := p.untaken(ctx, len(tokens)); err != nil {
		return err
	}
	got, err := p.Backend.Prefill(ctx, p.Slot, slices.Concat(tokens, p.repeated(0, turnTokens)))
	if err != nil {
		return err
	}
	if got.CacheN != len(tokens) {
		return fmt.Errorf("a prompt of %d tokens without most of its cells was restored, and the backend found %d of it", len(tokens), got.CacheN)
	}
	_, _, err = p.Backend.Save(ctx, p.Slot, filepath.Base(files[1]))
	return err
}

// stretch is n cells of a state, at the positions from at on.
type stretch struct {
	s     *State
	at, n int32
}

// compareTurns compares the first layer's keys of two stretches of the same tokens. There a key
// depends on token and position alone.
func compareTurns(k *Kernels, rope *RoPE, from, to stretch) (turning, error) {
	out := turning{over: to.at - from.at}
	keys, err := from.keys()
	if err != nil {
		return out, err
	}
	theirs, err := to.keys()
	if err != nil {
		return out, err
	}
	by := max(out.over, from.n) // what packing costs shows in keys that move
	moved, err := from.moved(k, rope, keys, by)
	if err != nil {
		return out, err
	}
	a, err := from.upright(k, rope, keys, from.at)
	if err != nil {
		return out, err
	}
	b, err := to.upright(k, rope, theirs, to.at)
	if err != nil {
		return out, err
	}
	packed, err := from.upright(k, rope, moved, from.at+by)
	if err != nil {
		return out, err
	}
	out.measure(rope, a, b, packed)
	if elems, _ := from.s.Layout.Layers[0].KType.BlockSize(); elems > 1 && from.s.Layout.NRotK == 0 {
		out.strays = len(out.pairs) / strayPairs
	}
	return out, nil
}

// measure sets the quotient of b and a for each pair, over all heads and tokens and so
// weighted by length. packed are the pairs of a after one more packing, which shows how much
// an error may come from that.
func (t *turning) measure(rope *RoPE, a, b, packed []complex128) {
	t.pairs = make([]pairTurn, len(rope.Freqs))
	mean := math.Sqrt(squared(a) / float64(len(t.pairs)))
	for i := range t.pairs {
		x, y, z := every(a, i, len(t.pairs)), every(b, i, len(t.pairs)), every(packed, i, len(t.pairs))
		var xy complex128
		for j := range x {
			xy += cmplx.Conj(x[j]) * y[j]
			z[j] -= x[j]
		}
		length := math.Sqrt(squared(x))
		if length == 0 {
			t.pairs[i].gain = 1 // whatever it turns by
			continue
		}
		rounding := computeError*mean + packedShare*math.Sqrt(squared(z))
		angle := float64(t.over) * float64(rope.Freqs[i])
		t.pairs[i] = pairTurn{gain: xy / complex(squared(x), 0), slack: turnError + rounding/length + angleError*angle}
	}
}

// every returns the elements i, i+n, i+2n, ... of x.
func every(x []complex128, i, n int) (out []complex128) {
	for ; i < len(x); i += n {
		out = append(out, x[i])
	}
	return out
}

// squared is the square of the length of x.
func squared(x []complex128) (sum float64) {
	for _, z := range x {
		sum += real(z)*real(z) + imag(z)*imag(z)
	}
	return sum
}

// keys are the first layer's as they are stored, by position.
func (c stretch) keys() ([]byte, error) {
	size := int(c.s.Layout.Layers[0].KRow)
	all := c.s.Layer(0).K
	var out []byte
	for pos := c.at; pos < c.at+c.n; pos++ {
		row, ok := c.s.Row(pos)
		if !ok {
			return nil, fmt.Errorf("position %d has no cell", pos)
		}
		out = append(out, all[row*size:(row+1)*size]...)
	}
	return out, nil
}

// moved are keys moved by some positions, as sharing does it.
func (c stretch) moved(k *Kernels, rope *RoPE, keys []byte, by int32) ([]byte, error) {
	l := c.s.Layout.Layers[0]
	out := slices.Clone(keys)
	job := LayerJob{K: out, KType: l.KType, KRow: int64(l.KRow), KRot: int32(c.s.Layout.NRotK), DstCells: int64(c.n),
		Sources: []LayerSource{{K: keys}}, SrcCells: []int64{int64(c.n)}}
	if err := k.Compose([]LayerJob{job}, []Run{{Len: c.n, Delta: by}}, rope, 1); err != nil {
		return nil, fmt.Errorf("keys cannot be moved: %w", err)
	}
	return out, nil
}

// upright are the pairs of keys, the first of which is at a position, turned back to position 0:
// token by token and head by head, as complex numbers.
func (c stretch) upright(k *Kernels, rope *RoPE, keys []byte, first int32) ([]complex128, error) {
	x, err := floats(k, c.s.Layout.Layers[0].KType, keys)
	if err != nil {
		return nil, err
	}
	width := len(x) / int(c.n)
	out := make([]complex128, 0, len(x)/2)
	for at := 0; at < len(x); at += rope.HeadDim {
		head := x[at : at+rope.HeadDim]
		hadamard(head, int(c.s.Layout.NRotK))
		pos := float64(first) + float64(at/width)
		for i, f := range rope.Freqs {
			a, b := rope.pair(i)
			out = append(out, complex(float64(head[a]), float64(head[b]))*cmplx.Rect(1, -pos*float64(f)))
		}
	}
	return out, nil
}
