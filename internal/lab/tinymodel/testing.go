package tinymodel

import (
	"path/filepath"
	"testing"
)

// Make writes a model into a folder of the test's own.
func Make(t testing.TB, o Options) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := WriteFile(path, o); err != nil {
		t.Fatal(err)
	}
	return path
}
