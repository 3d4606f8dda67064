package inject

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
)

// TestCopyTakesTheCUDALibraryAlong: where the agent is copied, what it loads beside itself
// is too; where the image has none, that is no error; a missing agent is.
func TestCopyTakesTheCUDALibraryAlong(t *testing.T) {
	image, shared := t.TempDir(), t.TempDir()
	write := func(name string) string {
		path := filepath.Join(image, name)
		if err := os.WriteFile(path, []byte(name), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	copied := func(name string) bool {
		b, err := os.ReadFile(filepath.Join(shared, name))
		return err == nil && string(b) == name
	}
	agent := write(agentLibrary)
	if err := Copy(agent, shared); err != nil || !copied(agentLibrary) || copied(cudaLibrary) {
		t.Errorf("without a CUDA library: %v", err)
	}
	write(cudaLibrary)
	if err := Copy(agent, shared); err != nil || !copied(cudaLibrary) {
		t.Errorf("with a CUDA library: %v", err)
	}
	other := write("libsemshare.so")
	if err := os.Remove(filepath.Join(shared, cudaLibrary)); err != nil {
		t.Fatal(err)
	}
	if err := Copy(other, shared); err != nil || copied(cudaLibrary) {
		t.Errorf("another library: %v", err)
	}
	if err := os.Remove(agent); err != nil {
		t.Fatal(err)
	}
	if err := Copy(agent, shared); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a missing agent: %v, expected that it does not exist", err)
	}
}
