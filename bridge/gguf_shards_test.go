package bridge

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// factored is a model whose frequency factors and embeddings lie in files of their own, once
// it is split.
func factored(seed uint64) tinymodel.Options {
	factors := make([]float32, 32)
	for i := range factors {
		factors[i] = 1 + float32(i)/4
	}
	return tinymodel.Options{Factors: factors, Seed: seed}
}

func split(t *testing.T, o tinymodel.Options) string {
	t.Helper()
	path, err := tinymodel.WriteShards(t.TempDir(), o)
	if err != nil {
		t.Fatal(err)
	}
	return path
}

func opened(t *testing.T, path string) *Model {
	t.Helper()
	m, err := OpenModel(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func TestAModelOfSeveralFilesIsReadAsOne(t *testing.T) {
	one, path := opened(t, tinymodel.Make(t, factored(1))), split(t, factored(1))
	m := opened(t, path)
	if m.Unshareable != "" || !slices.Equal(m.RoPE.Freqs, one.RoPE.Freqs) {
		t.Errorf("RoPE %+v, %q, expected %+v", m.RoPE, m.Unshareable, one.RoPE)
	}
	got, want := make([]float32, m.Dim), make([]float32, m.Dim)
	for token := range int32(m.Vocab) {
		if err := m.EmbeddingRow(GoKernels(), token, got); err != nil {
			t.Fatal(err)
		}
		if err := one.EmbeddingRow(GoKernels(), token, want); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, want) {
			t.Fatalf("token %d has another embedding", token)
		}
	}
	if again := opened(t, split(t, factored(1))); again.Hash != m.Hash {
		t.Errorf("the same model has hashes %s and %s", m.Hash, again.Hash)
	}
	if other := opened(t, split(t, factored(2))); other.Hash == m.Hash {
		t.Error("other weights, which only the second and third file have, have the same hash")
	}
	last := strings.Replace(path, "00001-of", "00003-of", 1)
	if m.Replaced() {
		t.Error("nothing was replaced")
	}
	if err := os.WriteFile(last+".new", []byte("GGUF"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(last+".new", last); err != nil {
		t.Fatal(err)
	}
	if !m.Replaced() {
		t.Error("the last file was replaced")
	}
	if _, err := OpenModel(path); err == nil || !strings.Contains(err.Error(), filepath.Base(last)) {
		t.Errorf("a broken file is named as %v", err)
	}
}

func TestKeysOfAModelOfSeveralFilesAreMoved(t *testing.T) {
	got := proberOf(t, lab.BackendOptions{Model: split(t, factored(1)), Context: 1024, Slots: 1}).mustProbe(t)
	if got.RoPE == nil {
		t.Error(got.Why)
	}
}
