package bridge

import (
	"context"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestFillingBesideADraftModel: a slot that held another prompt is filled in either way, and
// the server goes on behind it by both models.
func TestFillingBesideADraftModel(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{Layers: 4, Seed: 3}), Draft: tinymodel.Make(t, tinymodel.Options{Seed: 3}), Context: 4096})
	ctx := context.Background()
	tokens := randomTokens(400, 1)
	ref := k.cold("ref", tokens)
	fl := &Filler{Backend: k.backend, Kernels: GoKernels(), Store: openStore(t, k.lab.SlotDir, StoreOptions{}), Layout: &ref.Layout, RoPE: k.model.RoPE, Speculates: k.backend.Speculates(ctx)}
	f := func(way string, filled int, fill func() error) {
		t.Helper()
		if err := k.backend.Erase(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if _, err := k.backend.Prefill(ctx, 1, randomTokens(50, 2)); err != nil {
			t.Fatal(err)
		}
		if err := fill(); err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		if got, err := k.backend.Prefill(ctx, 1, tokens); err != nil || got.CacheN != filled {
			t.Errorf("%s: %d tokens in the cache (%v): expected %d", way, got.CacheN, err, filled)
		}
	}
	run := func(from, to int32) []Run { return []Run{{Src: from, Dst: from, Len: to - from}} }
	f("slot", 350, func() error {
		_, err := fl.Fill(ctx, Fill{Slot: 1, Tokens: tokens, Refs: []*Reference{{State: ref}}, Threads: 1, SaveWithin: time.Minute,
			Stages: []FillStage{{Runs: run(0, 100), From: 100, To: 120}, {Runs: run(120, 200), From: 200, To: 220}, {Runs: run(220, 350), From: 350, To: 400}}})
		return err
	})
	f("agent", 350, func() error {
		depth := all(350, 0)
		depth[100] = uint16(len(ref.Layout.Layers))
		_, _, err := fl.Cook(ctx, 1, &Recipe{Tokens: tokens[:350], Depth: depth, Runs: run(0, 350), Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE})
		return err
	})
}

func TestAServerWithoutADraftModelIsKnown(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{})})
	if k.backend.Speculates(context.Background()) {
		t.Error("it is taken for one that has one: each restore takes a call more")
	}
}
