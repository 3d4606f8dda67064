package bridge

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestALongerReferenceTakesOverWhatTheOtherEarned(t *testing.T) {
	dir := t.TempDir()
	s := openStore(t, dir, StoreOptions{})
	old := save(t, s, 1, 1)
	s.Hit(old, 100)
	var dropped []string
	s.OnDrop(func(m Meta, reason string) { dropped = append(dropped, m.ID+" "+reason) })
	ref, err := s.Get(old)
	if err != nil {
		t.Fatal(err)
	}
	p, err := s.Reserve(stateBytes, Meta{Tenant: "tenant", Copy: Copy{From: 2, Len: 3}}, 1)
	if err != nil {
		t.Fatal(err)
	}
	writeState(t, p.Path(), storeLayout, 1, storeTokens, 2)
	by, err := p.Commit()
	if err != nil {
		t.Fatal(err)
	}
	s.Replace(ref, by)
	ref.Release()
	by.Release()
	if len(dropped) != 1 || dropped[0] != old+" replaced" {
		t.Errorf("dropped: %v, want %s", dropped, old)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = openStore(t, dir, StoreOptions{})
	all := s.All()
	if len(all) != 1 || all[0].ID != by.ID || all[0].Hits != 1 || all[0].SavedTokens != 100 || all[0].Copy != (Copy{2, 3}) {
		t.Errorf("after a restart: %+v, want %s with a hit, 100 tokens saved and the copy", all, by.ID)
	}
	if e := s.entries[by.ID]; e != nil && e.earned.Hits == 0 {
		t.Error("what it earned is gone")
	}
	if p, err := s.Prompt(by.ID); err != nil || p.Copy != (Copy{2, 3}) {
		t.Errorf("copy %v, %v", p.Copy, err)
	}
}

func TestACopyThatCannotBeIsCorrupt(t *testing.T) {
	for _, c := range []string{`{"from":-1,"len":3}`, `{"from":0,"len":-3}`, `{"from":0,"len":9}`, `{"from":11,"len":3}`} {
		dir := t.TempDir()
		s := openStore(t, dir, StoreOptions{})
		id := save(t, s, 1, 1)
		s.Close()
		path := filepath.Join(dir, metaName(id))
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		data = []byte(strings.Replace(string(data), `"tokens"`, `"copy":`+c+`,"tokens"`, 1))
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := openStore(t, dir, StoreOptions{}).Prompt(id); !errors.Is(err, ErrNoReference) {
			t.Errorf("copy %s of %d tokens: error %v, want it dropped", c, storeTokens, err)
		}
	}
}
