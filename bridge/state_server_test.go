package bridge

import (
	"context"
	"math"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// randomTokens are n bytes, such as a tiny model knows.
func randomTokens(n int, seed uint64) []int32 {
	r := rand.New(rand.NewPCG(seed, 7))
	out := make([]int32, n)
	for i := range out {
		out[i] = int32(32 + r.IntN(90))
	}
	return out
}

// TestMovedKeysAreWhatTheServerItselfMakes has a real server shift a passage by
// itself (--cache-reuse), and compares its cache, and what it predicts next, with a
// state in which we moved the same rows by as much.
func TestMovedKeysAreWhatTheServerItselfMakes(t *testing.T) {
	// A YaRN model's keys carry mscale = 1 + 0.1 ln(factor). llama.cpp's own shift
	// multiplies by it once more, which ours must not: so the server's are longer.
	scale := 1.0
	f := func(name string, model tinymodel.Options, o lab.BackendOptions, tolerance float64) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Context, o.CacheReuse, o.NoRAMCache = tinymodel.Make(t, model), 2048, 16, true
			b := lab.StartBackend(t, o)
			testMoved(t, b, scale, tolerance)
		})
	}
	factors := make([]float32, 32)
	for i := range factors {
		factors[i] = 1 + float32(i)/4
	}
	f("NORM", tinymodel.Options{}, lab.BackendOptions{}, 2e-3)
	f("NORM with factors, unified", tinymodel.Options{Factors: factors}, lab.BackendOptions{Unified: true}, 2e-3)
	f("NEOX, V transposed", tinymodel.Options{Arch: "qwen2"}, lab.BackendOptions{FlashAttention: "off"}, 2e-3)
	f("linear", tinymodel.Options{Scaling: "linear", ScalingFactor: 4}, lab.BackendOptions{}, 2e-3)
	f("NORM, q8_0", tinymodel.Options{}, lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"}, 2e-2)
	f("NEOX, q4_0", tinymodel.Options{Arch: "qwen2"}, lab.BackendOptions{TypeK: "q4_0", TypeV: "q4_0", FlashAttention: "on"}, 0.3)
	scale = 1 + 0.1*math.Log(4)
	f("YaRN", tinymodel.Options{Scaling: "yarn", ScalingFactor: 4, OrigContext: 512}, lab.BackendOptions{}, 2e-3)
}

func testMoved(t *testing.T, b *lab.Backend, scale, tolerance float64) {
	ctx := context.Background()
	backend := NewBackend(b.URL, "", time.Second)
	defer backend.Close()
	const junk, n = 37, 200
	passage := randomTokens(n, 2)
	saved := func(name string, tokens []int32, wantCached int) *State {
		t.Helper()
		reply, err := backend.post(ctx, "/completion", "", map[string]any{
			"prompt": tokens, "n_predict": 0, "id_slot": 0, "cache_prompt": true, "n_cache_reuse": 16,
		})
		if err != nil {
			t.Fatal(err)
		}
		if got := int(gjson.GetBytes(reply, "timings.cache_n").Int()); got != wantCached {
			t.Fatalf("%s: %d tokens from the cache, expected %d", name, got, wantCached)
		}
		if _, _, err := backend.Save(ctx, 0, name); err != nil {
			t.Fatal(err)
		}
		s, err := OpenState(filepath.Join(b.SlotDir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	before := saved("before", slices.Concat(randomTokens(junk, 1), passage), 0)
	after := saved("after", slices.Concat(passage, []int32{'e', 'n', 'd'}), n)

	m, err := OpenModel(b.Model)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	pos := make([]int32, n)
	for i := range pos {
		pos[i] = int32(i)
	}
	path := filepath.Join(b.SlotDir, "moved")
	w, err := CreateState(path, &before.Layout, 1, passage, pos)
	if err != nil {
		t.Fatal(err)
	}
	jobs, err := w.Jobs([]*State{before})
	if err != nil {
		t.Fatal(err)
	}
	if err := GoKernels().Compose(jobs, []Run{{Src: junk, Len: n, Delta: -junk}}, m.RoPE, 2); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	moved, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	defer moved.Close()
	for layer := range moved.Layout.Layers {
		if got := keyError(t, moved, after, layer, 0, n, scale); got > tolerance {
			t.Errorf("layer %d: keys differ by up to %.3g of the largest: expected %.3g", layer, got, tolerance)
		}
		if got := keyError(t, before, after, layer, junk, n, scale); got < 0.3 {
			t.Errorf("layer %d: unmoved keys differ by %.3g only: the test shows nothing", layer, got)
		}
	}

	// And the server takes it for its own, to the last token.
	if got, err := backend.Restore(ctx, 1, "moved"); err != nil || got != n {
		t.Fatalf("restored %d tokens, %v: expected %d", got, err, n)
	}
	end := slices.Concat(passage, []int32{'e', 'n', 'd'})
	if got, err := backend.Prefill(ctx, 1, end); err != nil || got.CacheN != n {
		t.Errorf("%d tokens from the cache, %v: expected %d", got.CacheN, err, n)
	}
	if scale != 1 {
		return
	}
	shifted, ours := nextLogprobs(t, backend, 0, end), nextLogprobs(t, backend, 1, end)
	least, worst := 0.0, 0.0
	for token, p := range shifted {
		least, worst = min(least, p), max(worst, math.Abs(p-ours[token]))
	}
	if worst > -tolerance*least {
		t.Errorf("what follows has log-probabilities down to %.1f; after the server's shift and ours they differ by up to %.2g: expected %.2g", least, worst, -tolerance*least)
	}
}

// nextLogprobs are those of the next token behind what a slot has cached.
func nextLogprobs(t *testing.T, backend *Backend, slot int, tokens []int32) map[int64]float64 {
	t.Helper()
	reply, err := backend.post(context.Background(), "/completion", "", map[string]any{
		"prompt": tokens, "n_predict": 1, "id_slot": slot, "cache_prompt": true, "n_probs": 64, "temperature": 0,
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := int(gjson.GetBytes(reply, "timings.cache_n").Int()); got < len(tokens)-3 {
		t.Fatalf("slot %d: %d tokens from the cache, expected %d and more", slot, got, len(tokens)-3)
	}
	out := map[int64]float64{}
	for _, p := range gjson.GetBytes(reply, "completion_probabilities.0.top_logprobs").Array() {
		out[p.Get("id").Int()] = p.Get("logprob").Float()
	}
	if len(out) < 64 {
		t.Fatalf("%d log-probabilities: expected 64", len(out))
	}
	return out
}

// keyError is the largest difference between the keys of the n positions from from
// in a, times scale, and those from 0 in b, as a share of the largest key element. (After a shift
// the server puts new tokens into the freed cells: b's rows are in another order.)
func keyError(t *testing.T, a, b *State, layer int, from, n int32, scale float64) float64 {
	t.Helper()
	var worst, largest float64
	for i := range n {
		x, y := keyRow(t, a, layer, from+i), keyRow(t, b, layer, i)
		for j := range x {
			worst = max(worst, math.Abs(scale*float64(x[j])-float64(y[j])))
			largest = max(largest, math.Abs(float64(y[j])))
		}
	}
	return worst / largest
}

func keyRow(t *testing.T, s *State, layer int, pos int32) []float32 {
	t.Helper()
	row, ok := s.Row(pos)
	if !ok {
		t.Fatalf("no cell at position %d", pos)
	}
	l := s.Layout.Layers[layer]
	elems, err := l.KType.rowElems(int64(l.KRow))
	if err != nil {
		t.Fatal(err)
	}
	out := make([]float32, elems)
	k := s.Layer(layer).K[row*int(l.KRow):][:l.KRow]
	if err := GoKernels().Dequantize(l.KType, k, out); err != nil {
		t.Fatal(err)
	}
	return out
}
