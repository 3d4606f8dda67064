package bridge

import (
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAgentComputesWhatAnAnswerAttendsTo: cells off in one stretch, which the recipe calls
// displaced, are computed as far as the share goes: with all of them the cache ends as
// the server would have computed it, with some less far off than with none.
func TestAgentComputesWhatAnAnswerAttendsTo(t *testing.T) {
	f := func(name string, model tinymodel.Options, o lab.BackendOptions, tolerance float64) {
		t.Run(name, func(t *testing.T) {
			model.Layers = 4
			o.Model, o.Context = tinymodel.Make(t, model), 4096
			testAttends(t, newKitchen(t, o), tolerance)
		})
	}
	f("llama", tinymodel.Options{}, lab.BackendOptions{}, 3e-3)
	f("qwen2, V transposed", tinymodel.Options{Arch: "qwen2"}, lab.BackendOptions{FlashAttention: "off"}, 3e-3)
	f("q8_0", tinymodel.Options{}, lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"}, 3e-2)
}

func testAttends(t *testing.T, k *kitchen, tolerance float64) {
	const n, from, to, layers = 500, 100, 420, 4
	tokens := randomTokens(n, 1)
	want := k.cold("want", tokens)
	ref := k.spoilt("spoilt", want, from, to)
	off := func(share float64, computed int64) float64 {
		t.Helper()
		r := &Recipe{Tokens: tokens, Depth: make([]uint16, n), Runs: []Run{{Len: from - 10}, {Src: from, Dst: from, Len: n - from}}, Layout: &want.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE,
			Attended: share, Displaced: make([]bool, n), Following: []int32{1}}
		for i := from - 10; i < from; i++ {
			r.Depth[i] = layers // no reference has them
		}
		for i := from; i < to; i++ {
			r.Displaced[i] = true
		}
		reply := k.cook(r)
		if reply.Keys != computed*layers {
			t.Errorf("share %g: %d keys computed, expected those of %d cells in %d layers", share, reply.Keys, computed, layers)
		}
		keys, values := k.off(k.save("got", 1), want)
		t.Logf("share %g: keys off by %.2g, values by %.2g", share, keys, values)
		return max(keys, values)
	}
	const besides = 1 + DraftTokens
	none := off(0, 10)
	half := off(.5, 10+(to-from)/2+besides)
	all := off(1, 10+to-from+besides)
	if none < 5*tolerance || half >= none {
		t.Errorf("off by %.2g with none computed, %.2g with half: expected much, and less", none, half)
	}
	if all > tolerance {
		t.Errorf("off by %.2g with all computed: expected at most %.2g", all, tolerance)
	}
}
