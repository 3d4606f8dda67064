package proxy

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// idFile in the slot directory holds the id by which the index knows it.
const idFile = "semsharekv.id"

// directoryID tells this slot directory from others whose sidecars have the same Redis:
// what lies in another cannot be read here, and must not be found.
func directoryID(dir string) (string, error) {
	path := filepath.Join(dir, idFile)
	id, err := lasting(path)
	switch {
	case err != nil:
		return "", fmt.Errorf("cannot read the slot directory's id: %w", err)
	case len(id) < 16:
		return "", fmt.Errorf("slot directory's id %s has %d bytes: want at least 16; where the file is removed, it is made anew", path, len(id))
	}
	return string(id), nil
}

// lasting is what a file holds. Where there is none, it is made of random digits, in one
// step, so that all who start at once get what the first one made. Where the directory
// cannot be written they last for this run alone.
func lasting(path string) ([]byte, error) {
	if found, err := os.ReadFile(path); !errors.Is(err, fs.ErrNotExist) {
		return found, err
	}
	made := []byte(hex.EncodeToString(randomBytes(32)))
	if err := writeOnce(path, made); err != nil {
		return made, nil // the probe reports a directory that cannot be written
	}
	return os.ReadFile(path)
}

// writeOnce makes a file with that in it, mode 0600, unless there is one.
func writeOnce(path string, data []byte) error {
	return writeBeside(path, data, func(from, to string) error {
		err := os.Link(from, to)
		switch {
		case errors.Is(err, fs.ErrExist):
			return nil
		case err != nil: // a file system without hard links
			return exclusive(to, data)
		}
		return nil
	})
}

// writeWhole writes a file in one step, mode 0600, in the place of one that is there.
func writeWhole(path string, data []byte) error { return writeBeside(path, data, os.Rename) }

// writeBeside writes into another file, of mode 0600, which place then puts at path.
func writeBeside(path string, data []byte, place func(from, to string) error) error {
	f, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	return place(f.Name(), path)
}

// exclusive makes a file with that in it, mode 0600, unless there is one.
func exclusive(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, fs.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b) // never fails
	return b
}
