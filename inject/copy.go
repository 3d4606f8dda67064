package inject

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
)

// libraries is where images have the libraries that are not beside the program.
const libraries = "/usr/lib/semsharekv"

// Copy puts a library of the sidecar's image into a directory that other
// containers see; the image has no shell to do so. A relative name is looked for
// beside the program, then in libraries. The agent takes along the CUDA library,
// which it loads from beside itself, where the image has it.
func Copy(library, dir string) error {
	if err := copyLibrary(library, dir); err != nil || filepath.Base(library) != agentLibrary {
		return err
	}
	err := copyLibrary(filepath.Join(filepath.Dir(library), cudaLibrary), dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

func copyLibrary(library, dir string) error {
	in, err := openLibrary(library)
	if err != nil {
		return err
	}
	defer in.Close()
	target := filepath.Join(dir, filepath.Base(library))
	// Written aside and renamed: the server must never load half a library.
	out, err := os.CreateTemp(dir, filepath.Base(library)+".*")
	if err != nil {
		return fmt.Errorf("cannot write to the shared directory: %w", err)
	}
	defer os.Remove(out.Name())
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Chmod(0o755), out.Close()); err != nil {
		return fmt.Errorf("cannot copy %s to %s: %w", in.Name(), target, err)
	}
	return os.Rename(out.Name(), target)
}

func openLibrary(name string) (*os.File, error) {
	if filepath.IsAbs(name) {
		return os.Open(name)
	}
	program, err := os.Executable()
	if err != nil {
		return nil, err
	}
	beside := filepath.Join(filepath.Dir(program), name)
	f, err := os.Open(beside)
	if !errors.Is(err, fs.ErrNotExist) {
		return f, err
	}
	if f, err = os.Open(filepath.Join(libraries, name)); err != nil {
		return nil, fmt.Errorf("%s is neither %s nor in %s: %w", name, beside, libraries, err)
	}
	return f, nil
}
