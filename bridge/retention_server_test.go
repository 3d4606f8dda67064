package bridge

import (
	"bytes"
	"context"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAgentRetainsAShareOfTheCells: what is kept is what the whole recipe makes, in the
// right places, with the first and last cells and those that must be kept.
func TestAgentRetainsAShareOfTheCells(t *testing.T) {
	f := func(name string, o lab.BackendOptions) {
		t.Run(name, func(t *testing.T) {
			o.Model, o.Context = tiny(t, tinymodel.Options{Layers: 4}), 4096
			testRetains(t, newKitchen(t, o))
		})
	}
	f("f16", lab.BackendOptions{})
	f("V transposed", lab.BackendOptions{FlashAttention: "off"})
	f("q8_0", lab.BackendOptions{TypeK: "q8_0", TypeV: "q8_0", FlashAttention: "on"})
}

func testRetains(t *testing.T, k *kitchen) {
	const n, named = 700, 333
	tokens := randomTokens(n, 1)
	ref := k.packed("ref", k.cold("cold", tokens), "q8_0")
	server := k.cold("cold", tokens)
	r := &Recipe{Tokens: tokens, Depth: make([]uint16, n), Runs: []Run{{Len: n}}, Layout: &server.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}
	for i := n - AttentionWindow; i < n; i++ {
		r.Depth[i] = 4 // as retention does
	}
	k.cook(r)
	whole := k.save("whole", 1)
	r.Retention, r.Keep = 0.58, make([]bool, n)
	r.Keep[named] = true
	if reply := k.cook(r); reply.Cells != 406 {
		t.Errorf("%d cells: expected 58 %% of %d, 406", reply.Cells, n)
	}
	kept := k.save("kept", 1)
	for _, pos := range []int32{0, 15, named, n - AttentionWindow, n - 1} {
		if _, ok := kept.Row(pos); !ok {
			t.Errorf("the cell at %d was not kept", pos)
		}
	}
	for i, pos := range kept.Pos {
		row, ok := whole.Row(pos)
		if !ok {
			t.Fatalf("a cell at %d, which the whole has not", pos)
		}
		for l := range whole.Layout.Layers {
			if !bytes.Equal(cellOf(kept, l, i), cellOf(whole, l, row)) {
				t.Fatalf("layer %d: the cell at %d is another than in the whole", l, pos)
			}
		}
	}
	got, err := k.backend.Prefill(context.Background(), 1, append(tokens[:n:n], tokens[0]))
	if err != nil {
		t.Fatal(err)
	}
	if got.CacheN != n {
		t.Errorf("the server found %d tokens in its cache: expected %d", got.CacheN, n)
	}
}

// cellOf is a row's keys and values.
func cellOf(s *State, layer, row int) []byte {
	y, l := &s.Layout.Layers[layer], s.Layer(layer)
	out := append([]byte(nil), l.K[row*int(y.KRow):(row+1)*int(y.KRow)]...)
	if !s.Layout.VTrans {
		return append(out, l.V[row*int(y.VRow):(row+1)*int(y.VRow)]...)
	}
	for i := range int(y.VWidth) {
		at := (i*s.Cells() + row) * int(y.VElem)
		out = append(out, l.V[at:at+int(y.VElem)]...)
	}
	return out
}

// TestRetentionMakesRoomForMorePrompts: in a cache of 20,480 cells four prompts of
// 5,000 tokens live at once, and seven of them at 58 %.
func TestRetentionMakesRoomForMorePrompts(t *testing.T) {
	const n, slots, cells = 5000, 8, 20480
	k := newKitchen(t, lab.BackendOptions{Model: tiny(t, tinymodel.Options{Context: cells}), Context: cells, Slots: slots, Unified: true})
	live := func(retention float64) int {
		var recipes []*Recipe
		for i := range slots {
			ref := k.cold("ref"+string(rune('a'+i)), randomTokens(n, uint64(i)))
			recipes = append(recipes, &Recipe{Tokens: ref.Tokens, Depth: make([]uint16, n), Runs: []Run{{Len: n}},
				Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE, Retention: retention})
		}
		for i := range slots {
			if err := k.backend.Erase(context.Background(), i); err != nil {
				t.Fatal(err)
			}
		}
		fit := 0
		for fit < slots {
			if _, err := k.try(recipes[fit], fit); err != nil {
				break
			}
			fit++
		}
		for i := range fit {
			got, err := k.backend.Prefill(context.Background(), i, append(recipes[i].Tokens[:n:n], 1))
			if err != nil || got.CacheN != n {
				t.Fatalf("slot %d, prompt %d of %d: %d tokens cached, %v", i, i+1, fit, got.CacheN, err)
			}
		}
		for i := range slots {
			if err := k.backend.Erase(context.Background(), i); err != nil {
				t.Fatal(err)
			}
		}
		return fit
	}
	if whole, kept := live(1), live(0.58); whole != 4 || kept != 7 {
		t.Errorf("%d whole prompts fit, and %d at 58 %%: expected 4 and 7", whole, kept)
	}
}
