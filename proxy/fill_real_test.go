package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/matcher"
)

// blockScratch has no run make its first file for a composed state.
func blockScratch(t *testing.T, dir string) {
	t.Helper()
	locks, err := filepath.Glob(filepath.Join(dir, "ssk-*.lock"))
	if err != nil || len(locks) == 0 {
		t.Fatalf("no runs in %s (%v)", dir, err)
	}
	for _, lock := range locks {
		if err := os.Mkdir(strings.TrimSuffix(lock, ".lock")+"-s0.scratch", 0o700); err != nil {
			t.Fatal(err)
		}
	}
}

// TestASlotDirectoryThatCannotBeUsedEndsSharing, until the next probe, and no slot is
// emptied for it.
func TestASlotDirectoryThatCannotBeUsedEndsSharing(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var erased atomic.Int32
	s, _ := interposed(t, lab.BackendOptions{Model: model, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("action") == "erase" {
			erased.Add(1)
		}
		backend.ServeHTTP(w, r)
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	blockScratch(t, s.backend.SlotDir)
	before := erased.Load()
	for i := range maxStrikes {
		if err := s.server.sharer.Ready(); err != nil {
			t.Fatalf("sharing is off after %d fills: %v", i, err)
		}
		if r := s.complete(fmt.Sprint(i, ". ", tale("1812"))); r.report.Reason != coldFill || r.report.Slot < 0 {
			t.Fatalf("%s, in slot %d", r.did, r.report.Slot)
		}
	}
	s.off("could not be filled")
	if err := s.server.sharer.Ready(); err == nil || !strings.Contains(err.Error(), "slot directory") {
		t.Errorf("sharing is off for %v", err)
	}
	if n := erased.Load() - before; n != 0 {
		t.Errorf("%d slots were emptied", n)
	}
}

// TestSharingBesideADraftModel: the slot held a shorter prompt before.
func TestSharingBesideADraftModel(t *testing.T) {
	f := func(way string) {
		t.Run(way, func(t *testing.T) {
			model := filepath.Join(t.TempDir(), "model.gguf")
			replaceModel(t, model, 1)
			o := lab.BackendOptions{Model: model, Draft: model, Context: 4096, Slots: 1, NoRAMCache: true, Preload: agentLibrary(t)}
			s := startSharing(t, o, func(c *configs.Config) { c.Backend.Way = way })
			s.server.sharer.Try(&Trial{})
			s.want(s.complete(tale("1812")), "cold")
			s.want(s.complete("Something else."), "cold")
			s.want(s.complete("Once more. "+tale("1847")), "shared")
		})
	}
	f("slot")
	f("agent")
}

// TestAReferenceThatWasEvictedSinceItWasLookedUpIsNoWarning, nor one whose files another sidecar
// removed; one that is damaged is.
func TestAReferenceThatWasEvictedSinceItWasLookedUpIsNoWarning(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	s := startSharing(t, lab.BackendOptions{Model: model, NoRAMCache: true}, nil)
	s.server.sharer.Try(&Trial{})
	f := func(name string, warns bool, lose func(st *bridge.Store, id, path string) error) {
		t.Helper()
		s.want(s.complete(name+". "+tale("1812")), "cold")
		lv, path := s.server.sharer.live.Load(), s.references()[0]
		ref := lv.store.All()[0]
		if err := lose(lv.store, ref.ID, path); err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		d := &decision{sh: &Sharer{log: zerolog.New(&log)}, lv: lv, book: lv.slots, req: &request{Tenant: ref.Tenant}}
		reason := d.fill(t.Context(), &planned{Plan: &matcher.Plan{Refs: []string{ref.ID}}})
		if warned := strings.Contains(log.String(), `"level":"warn"`); reason != coldReference || warned != warns {
			t.Errorf("%s: %s, warned: %t; expected %s, %t", name, reason, warned, coldReference, warns)
		}
	}
	f("Evicted", false, func(st *bridge.Store, id, _ string) error {
		st.Drop(id, bridge.DropEvicted)
		return nil
	})
	f("Removed", false, func(_ *bridge.Store, _, path string) error {
		return errors.Join(os.Remove(strings.TrimSuffix(path, ".bin")+".json"), os.Remove(path))
	})
	f("Damaged", true, func(_ *bridge.Store, _, path string) error { return os.Truncate(path, 5000) })
}
