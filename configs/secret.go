package configs

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

const (
	// keyFile in the slot directory holds the HMAC key of the index.
	keyFile = "semsharekv.key"
	// leastSecret is how many bytes a secret that cannot be guessed has.
	leastSecret = 16
)

// IndexSecret reads the HMAC key of the index and says where it lies: in index.secret_file
// or, where that is empty, in the slot directory. There the sidecar makes it at the first
// start; until then the error is fs.ErrNotExist.
func (c *Config) IndexSecret() (secret []byte, path string, err error) {
	path = c.Index.SecretFile
	if path == "" {
		path = filepath.Join(c.Backend.SlotDir, keyFile)
	}
	secret, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrPermission) {
		return nil, path, fmt.Errorf("cannot read the index secret: %w; want to run as the user that made it", err)
	}
	if err != nil {
		return nil, path, fmt.Errorf("cannot read the index secret: %w", err)
	}
	if len(secret) < leastSecret {
		return nil, path, fmt.Errorf("index secret %s has %d bytes; want at least %d random ones", path, len(secret), leastSecret)
	}
	return secret, path, nil
}
