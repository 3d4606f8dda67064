package bridge

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestARecipeThatAServerWithoutTheAgentRefuses tells of that, not of a cache that is full,
// which is what the server says.
func TestARecipeThatAServerWithoutTheAgentRefuses(t *testing.T) {
	b := lab.StartBackend(t, lab.BackendOptions{Model: tinymodel.Make(t, tinymodel.Options{})})
	if err := os.WriteFile(filepath.Join(b.SlotDir, "a.recipe"), []byte("sskr and more"), 0o600); err != nil {
		t.Fatal(err)
	}
	backend := NewBackend(b.URL, "", time.Second)
	defer backend.Close()
	_, err := backend.Cook(context.Background(), 1, filepath.Join(b.SlotDir, "a.recipe"), 1)
	if !errors.Is(err, ErrNoAgent) || errors.Is(err, ErrNoCells) {
		t.Errorf("%v: expected that there is no agent", err)
	}
}

// TestARecipeThatIsNotSent leaves nothing behind, and is no loss of the backend.
func TestARecipeThatIsNotSent(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	var asked atomic.Bool
	server := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Store(true) }))
	here := NewBackend(server.URL, "", time.Second)
	defer server.Close()
	gone := httptest.NewServer(nil)
	gone.Close()
	nobody := NewBackend(gone.URL, "", time.Second)
	written := recipeFor(t, dir)
	f := func(what string, b *Backend, r *Recipe) error {
		t.Helper()
		fl := &Filler{Backend: b, Store: s}
		_, _, err := fl.Cook(context.Background(), 0, r)
		if !errors.Is(err, ErrUnsent) || errors.Is(err, ErrLost) {
			t.Errorf("%s: %v: expected that it was not sent", what, err)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "*.recipe*")); len(left) > 0 {
			t.Errorf("%s: left %v", what, left)
		}
		return err
	}
	f("a server that is away", nobody, written)
	f("a recipe that cannot be written", here, &Recipe{})
	if err := os.Mkdir(filepath.Join(dir, recipeName(s.run.id, s.recipes.Load()+1)), 0o700); err != nil {
		t.Fatal(err)
	}
	var file *fs.PathError
	if err := f("a file that cannot be made", here, written); !errors.As(err, &file) {
		t.Errorf("%v: expected the file's error", err)
	}
	if asked.Load() {
		t.Error("the server was asked")
	}
}

// TestTheAgentsCountIsComparedWithTheRecipes.
func TestTheAgentsCountIsComparedWithTheRecipes(t *testing.T) {
	f := func(restored int, want error) {
		t.Helper()
		dir := t.TempDir()
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if err := os.WriteFile(filepath.Join(dir, "a.recipe.reply"), []byte(`{"agent":1}`), 0o600); err != nil {
				t.Error(err)
			}
			fmt.Fprintf(w, `{"n_restored": %d}`, restored)
		}))
		defer server.Close()
		b := NewBackend(server.URL, "", time.Second)
		defer b.Close()
		if _, err := b.Cook(t.Context(), 0, filepath.Join(dir, "a.recipe"), 8); !errors.Is(err, want) {
			t.Errorf("restored %d of a recipe of 8: error %v, expected %v", restored, err, want)
		}
	}
	f(8, nil)
	f(7, ErrNotTaken)
	f(0, ErrNotTaken)
}

// recipeFor takes a state over.
func recipeFor(t *testing.T, dir string) *Recipe {
	t.Helper()
	path := filepath.Join(dir, "ref")
	writeState(t, path, storeLayout, 1, storeTokens, 1)
	s, err := OpenState(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return &Recipe{Tokens: s.Tokens, Depth: all(storeTokens, 0), Runs: []Run{{Len: storeTokens}}, Layout: &s.Layout, Refs: []*State{s}, RoPE: &RoPE{HeadDim: 64, Dims: 64}}
}
