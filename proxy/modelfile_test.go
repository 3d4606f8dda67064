package proxy

import (
	"os"
	"path/filepath"
	"testing"
)

// A model that cannot be read when the backend is probed is used once it can, and not while it
// is still being copied.
func TestAModelFileThatComesLaterIsSeen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	look := func(f *modelFile, step string, want bool) {
		t.Helper()
		if got := f.isThere(); got != want {
			t.Errorf("%s: %v, want %v", step, got, want)
		}
	}
	write := func(text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	f := watchModel(path)
	look(&f, "none", false)
	write("GG")
	look(&f, "a part", false)
	write("GGUF")
	look(&f, "another part", false)
	look(&f, "all of it", true)

	f = watchModel(path)
	look(&f, "no model", false)
	look(&f, "no model, still", false)
	write("GGUF, of which more was to come")
	look(&f, "the rest", false)
	look(&f, "the whole", true)
}
