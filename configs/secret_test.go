package configs

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
)

func TestASecretOfAnotherUser(t *testing.T) {
	c := Default()
	c.Backend.SlotDir = t.TempDir()
	if err := os.WriteFile(filepath.Join(c.Backend.SlotDir, keyFile), make([]byte, leastSecret), 0o000); err != nil {
		t.Fatal(err)
	}
	lab.AsNobody(t)
	_, _, err := c.IndexSecret()
	if !errors.Is(err, fs.ErrPermission) || !strings.Contains(err.Error(), "the user that made it") {
		t.Errorf("error %v", err)
	}
}
