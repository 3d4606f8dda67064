package bridge

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// A sidecar that is only measured shares its directory with one that serves.
func TestAStoreOfItsOwnLeavesOthersReferencesAlone(t *testing.T) {
	dir := t.TempDir()
	others := openStore(t, dir, StoreOptions{})
	first, second, damaged := save(t, others, 1, 1), save(t, others, 2, 1), save(t, others, 3, 1)
	if err := os.WriteFile(filepath.Join(dir, metaName(damaged)), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := files(t, dir)
	own := openStore(t, dir, StoreOptions{OnlyOwn: true, Budget: stateBytes}) // smaller than what is there
	if _, err := trySave(t, own, 4, 1000); !errors.Is(err, ErrNotAdmitted) {
		t.Errorf("beside %d bytes of others with a budget of %d: %v", 2*stateBytes, stateBytes, err)
	}
	own.Close()

	own = openStore(t, dir, StoreOptions{OnlyOwn: true, Budget: 3 * stateBytes})
	mine := save(t, own, 4, 1)
	for _, id := range []string{first, second, damaged} {
		if _, err := own.Get(id); !errors.Is(err, ErrNoReference) {
			t.Errorf("got another run's: %v", err)
		}
		if _, err := own.Prompt(id); !errors.Is(err, ErrNoReference) {
			t.Errorf("told another run's tokens: %v", err)
		}
	}
	if got := ids(own.All()); !slices.Equal(got, []string{mine}) {
		t.Errorf("all are %v: expected %v alone", got, mine)
	}
	mine = save(t, own, 5, 1) // in the place of the one before
	own.Drop(mine, "test")
	own.Close()
	if got := files(t, dir); !slices.Equal(got, before) {
		t.Errorf("left are %v: expected %v", got, before)
	}
}
