package bridge

import (
	"context"
	"os"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestAgentSparesTheServerTokenising: the request that follows its recipe is not tokenised a
// second time. That holds once, and for nobody who asks for the same text without a recipe.
func TestAgentSparesTheServerTokenising(t *testing.T) {
	k := newKitchen(t, lab.BackendOptions{Context: 2048})
	license, err := os.ReadFile("../LICENSE")
	if err != nil {
		t.Fatal(err)
	}
	ctx, text := context.Background(), string(license[2000:4400])
	ask := func() []int32 {
		t.Helper()
		tokens, err := k.backend.Tokenize(ctx, "", text, true, true)
		if err != nil {
			t.Fatal(err)
		}
		return tokens
	}
	tokens := ask()
	n := len(tokens) - 1
	ref := k.cold("ref", tokens[:n])
	cook := func() int64 {
		t.Helper()
		return k.cook(&Recipe{Tokens: tokens[:n], Following: tokens[n:], Runs: []Run{{Len: int32(n)}}, Depth: all(n, 0), Layout: &ref.Layout, Refs: []*State{ref}, RoPE: k.model.RoPE}).Spared
	}
	complete := func() {
		t.Helper()
		reply, err := k.backend.post(ctx, "/completion", "", map[string]any{"prompt": text, "n_predict": 1, "id_slot": 1, "cache_prompt": true})
		if err != nil {
			t.Fatal(err)
		}
		if held := int(gjson.GetBytes(reply, "timings.cache_n").Int()); held != n {
			t.Fatalf("the slot held %d tokens: expected %d", held, n)
		}
	}
	f := func(what string, got, want int64) {
		t.Helper()
		if got != want {
			t.Fatalf("%s: %d prompts were not tokenised a second time: expected %d", what, got, want)
		}
	}
	f("before anything", cook(), 0)
	complete()
	f("behind a recipe", cook(), 1)
	complete() // what was known of its text went with the request before
	complete() // and no recipe came between these two
	f("without a recipe", cook(), 1)
	complete()
	f("behind the next recipe", cook(), 2)
}
