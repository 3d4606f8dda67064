package proxy

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/matcher"
)

func TestASlotDirectoryHasAnIDOfItsOwn(t *testing.T) {
	id := func(dir string) string {
		t.Helper()
		id, err := directoryID(dir)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	dir := t.TempDir()
	first := id(dir)
	if id(dir) != first {
		t.Error("it has another one the second time")
	}
	if id(t.TempDir()) == first {
		t.Error("another directory has the same")
	}
	files, err := os.ReadDir(dir)
	if err != nil || len(files) != 1 || files[0].Name() != idFile {
		t.Errorf("files %v, error %v: want %s alone", files, err, idFile)
	}
	if st, err := os.Stat(filepath.Join(dir, idFile)); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, error %v: want mode 0600", st.Mode(), err)
	}
	if err := os.Truncate(filepath.Join(dir, idFile), 3); err != nil {
		t.Fatal(err)
	}
	if _, err := directoryID(dir); err == nil || !strings.Contains(err.Error(), idFile) {
		t.Errorf("of three bytes: error %v, want one that names the file", err)
	}
}

// TestNothingIsPutWhereAnotherUserReads: not even the index secret.
func TestNothingIsPutWhereAnotherUserReads(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("SKIPPED: only root gives directories to another user")
	}
	shm := t.TempDir()
	cfg := configs.Default()
	cfg.Backend.SlotDir = filepath.Join(shm, "slots")
	if err := errors.Join(os.Chmod(shm, os.ModeSticky|0o777), os.Mkdir(cfg.Backend.SlotDir, 0o777), os.Chown(cfg.Backend.SlotDir, 1234, 1234)); err != nil {
		t.Fatal(err)
	}
	sh, err := openSharer(cfg, zerolog.Nop(), NewMetrics(), false)
	if err == nil {
		t.Cleanup(func() { _ = sh.Close() })
	}
	files, _ := os.ReadDir(cfg.Backend.SlotDir)
	if err == nil || !strings.Contains(err.Error(), "belongs to user 1234") || len(files) != 0 {
		t.Errorf("error %v, files %v; want one that names the owner, and none", err, files)
	}
}

// TestNoScopeIsAnothers tenant's, model's or directory's.
func TestNoScopeIsAnothers(t *testing.T) {
	seen := map[matcher.Scope]string{}
	for _, tenant := range []string{"a", "b"} {
		for _, model := range []string{"c", "d"} {
			for _, directory := range []string{"e", "f"} {
				name := tenant + model + directory
				sc := (&Sharer{directory: directory}).scope(tenant, model)
				if of := seen[sc]; of != "" {
					t.Errorf("%s has the scope of %s", name, of)
				}
				seen[sc] = name
			}
		}
	}
}

func TestAllWhoStartAtOnceGetTheSame(t *testing.T) {
	for range 50 {
		path := filepath.Join(t.TempDir(), idFile)
		got := make([]string, 8)
		var all sync.WaitGroup
		for i := range got {
			all.Go(func() {
				b, err := lasting(path)
				if err != nil {
					t.Error(err)
				}
				got[i] = string(b)
			})
		}
		all.Wait()
		for _, g := range got {
			if g != got[0] || len(g) != 64 {
				t.Fatalf("got %q", got)
			}
		}
	}
}

func TestTwoSidecarsWithOneDirectoryTakeOverWhatEitherKeeps(t *testing.T) {
	a := startTiny(t, lab.BackendOptions{}, nil)
	b := besides(t, a.backend, func(c *configs.Config) { c.Store.MinTokens = 100000 }) // keeps nothing itself
	b.server.sharer.Try(&Trial{})
	a.want(a.complete(tale("1812")), "cold")
	b.resumes("the other sidecar kept a prompt")
}
