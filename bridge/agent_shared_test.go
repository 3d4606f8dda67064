package bridge

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAgentWithASharedLibllama: in a program that is linked with libllama and whose
// backends are libraries of their own, the agent computes what the program itself
// computes, and leaves other restores alone.
func TestAgentWithASharedLibllama(t *testing.T) {
	path := tinymodel.Make(t, tinymodel.Options{Arch: "qwen2", Layers: 4})
	h := lab.StartShared(t, path, agentLibrary(t), 2048)
	model, err := OpenModel(path)
	if err != nil {
		t.Fatal(err)
	}
	defer model.Close()
	k := &kitchen{t: t, model: model}
	saved := func(seq int, name string, tokens []int32) *State {
		h.Save(seq, name, tokens)
		s, err := OpenState(filepath.Join(h.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { s.Close() })
		return s
	}
	computed := func(name string, tokens []int32) *State {
		h.Compute(0, tokens)
		return saved(0, name, tokens)
	}
	restored := func(file string, tokens []int32) *State {
		n, err := h.Restore(1, file)
		if err != nil {
			t.Fatal(err)
		}
		if n != len(tokens) {
			t.Errorf("%s holds %d tokens: expected %d", file, n, len(tokens))
		}
		return saved(1, file+".got", tokens)
	}

	tokens, other := randomTokens(700, 1), randomTokens(300, 2)
	want, ref := computed("want", tokens), computed("ref", other)
	r := &Recipe{Tokens: tokens, Depth: all(len(tokens), len(ref.Layout.Layers)), Layout: &ref.Layout, Refs: []*State{ref}, RoPE: model.RoPE}
	if err := r.WriteFile(filepath.Join(h.Dir, "a.recipe")); err != nil {
		t.Fatal(err)
	}
	keys, values := k.off(restored("a.recipe", tokens), want)
	t.Logf("keys off by %.2g, values by %.2g", keys, values)
	if !(keys <= 3e-3 && values <= 3e-3) {
		t.Errorf("keys are off by %.2g, values by %.2g: expected at most 0.003", keys, values)
	}

	same := restored("ref", other)
	for l := range ref.Layout.Layers {
		if a, b := same.Layer(l), ref.Layer(l); !bytes.Equal(a.K, b.K) || !bytes.Equal(a.V, b.V) {
			t.Errorf("layer %d of a state that is no recipe has come back changed", l)
		}
	}

	r.Tokens[0] = 1 << 20
	if err := r.WriteFile(filepath.Join(h.Dir, "bad.recipe")); err != nil {
		t.Fatal(err)
	}
	if _, err := h.Restore(1, "bad.recipe"); err == nil {
		t.Error("a recipe with a token that the model does not have was carried out")
	}
	if _, err := h.Restore(1, "ref"); err != nil {
		t.Errorf("after a refused recipe: %v", err)
	}
}
