package proxy

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"path/filepath"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// replaceModel puts a model with other weights in the place of the file.
func replaceModel(t *testing.T, path string, seed uint64) {
	t.Helper()
	if err := tinymodel.WriteFile(path+".new", tinymodel.Options{Seed: seed}); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// probedAnew does what should bring a new probe about, and waits for it.
func (s *sharing) probedAnew(what string, do func()) {
	s.t.Helper()
	before := s.server.sharer.live.Load()
	do()
	within(s.t, "probed anew after "+what, func() bool {
		lv := s.server.sharer.live.Load()
		return lv != nil && lv != before
	})
}

func (s *sharing) restart() {
	s.t.Helper()
	if err := s.backend.Restart(context.Background()); err != nil {
		s.t.Fatal(err)
	}
}

func TestOtherWeightsInAFileOfTheSameNameAreNotMixed(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	s := startSharing(t, lab.BackendOptions{Model: model, NoRAMCache: true}, nil)
	s.server.sharer.Try(&Trial{}) // whether it pays or not
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("The same weights. "+tale("1812")), "shared")

	s.probedAnew("a restart", s.restart)
	s.want(s.complete("The same weights, restarted. "+tale("1812")), "shared")

	// The file first, the server later: meanwhile the file's name stands for weights that
	// the server does not have, and what is kept is kept under it.
	s.probedAnew("a new file", func() { replaceModel(t, model, 2) })
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete("The old weights. "+tale("1812")), "shared")
	s.probedAnew("a restart with the new file", s.restart)
	s.want(s.complete("The new weights. "+tale("1812")), "cold")
	s.want(s.complete("The new weights again. "+tale("1812")), "shared")

	// Back to the old ones: what they left is still there.
	s.probedAnew("the old file", func() { replaceModel(t, model, 1) })
	s.probedAnew("a restart with the old file", s.restart)
	s.want(s.complete("The old weights are back. "+tale("1812")), "shared")
}

// interposed is a sidecar before a backend, some of whose answers are another's.
func interposed(t *testing.T, o lab.BackendOptions, answer func(backend http.Handler, w http.ResponseWriter, r *http.Request)) (s *sharing, replace func(lab.BackendOptions)) {
	t.Helper()
	var target atomic.Pointer[url.URL]
	var b *lab.Backend
	replace = func(o lab.BackendOptions) {
		if b != nil {
			b.Close()
		}
		b = lab.StartBackend(t, o)
		u, err := url.Parse(b.URL)
		if err != nil {
			t.Fatal(err)
		}
		target.Store(u)
	}
	replace(o)
	between := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target.Load()) }}
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { answer(between, w, r) }))
	t.Cleanup(front.Close)
	return besides(t, &lab.Backend{URL: front.URL, SlotDir: b.SlotDir}, nil), replace
}

// TestReferencesOutliveAnotherNumberOfSlots: how a server divides its cache shows in its
// state files, and not in what they hold.
func TestReferencesOutliveAnotherNumberOfSlots(t *testing.T) {
	t.Run("slot", func(t *testing.T) { testOtherSlots(t, "") })
	t.Run("agent", func(t *testing.T) { testOtherSlots(t, agentLibrary(t)) })
}

func testOtherSlots(t *testing.T, preload string) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	o := lab.BackendOptions{Model: model, NoRAMCache: true, SlotDir: t.TempDir(), Preload: preload}
	s, replace := interposed(t, o, http.Handler.ServeHTTP)
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	others := []lab.BackendOptions{{Slots: 3, Context: 12288}, {Slots: 2, Unified: true}}
	for i, other := range others {
		other.Model, other.NoRAMCache, other.SlotDir, other.Preload = o.Model, o.NoRAMCache, o.SlotDir, o.Preload
		s.probedAnew("another number of slots", func() { replace(other) })
		if s.live().agent() != (preload != "") {
			t.Fatalf("the agent fills slots: %v", s.live().agent())
		}
		s.want(s.complete(fmt.Sprint("Begun anew, time ", i, ". ", tale("1812"))), "shared")
		if n := s.live().failures.Load(); n != 0 {
			t.Errorf("the agent failed %d times", n)
		}
	}
}

// Nothing in /props tells of the cache's types.
func TestAnotherKVTypeEndsSharingUntilTheNextProbe(t *testing.T) {
	t.Run("seen by a fill", func(t *testing.T) { testAnotherKVType(t, "With another type. "+tale("1812")) })
	t.Run("seen by a capture", func(t *testing.T) { testAnotherKVType(t, unrelated) })
}

func testAnotherKVType(t *testing.T, next string) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var props atomic.Pointer[[]byte]
	o := lab.BackendOptions{Model: model, NoRAMCache: true, SlotDir: t.TempDir(), FlashAttention: "on"}
	s, replace := interposed(t, o, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/props" {
			backend.ServeHTTP(w, r)
			return
		}
		if props.Load() == nil { // the first answer stays
			got := httptest.NewRecorder()
			backend.ServeHTTP(got, r)
			text := got.Body.Bytes()
			props.Store(&text)
		}
		_, _ = w.Write(*props.Load())
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	o.TypeK, o.TypeV = "q8_0", "q8_0"
	replace(o)
	s.want(s.complete(next), "cold")
	s.off("saves another layout")
}

func TestRestoresThatAreRefusedEndSharingUntilTheNextProbe(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var refuse atomic.Bool
	s, _ := interposed(t, lab.BackendOptions{Model: model, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if refuse.Load() && r.URL.Query().Get("action") == "restore" {
			http.Error(w, `{"error":{"message":"unable to restore slot"}}`, http.StatusBadRequest)
			return
		}
		backend.ServeHTTP(w, r)
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	refuse.Store(true)
	for i := range maxStrikes {
		if err := s.server.sharer.Ready(); err != nil {
			t.Fatalf("sharing is off after %d refused restores: %v", i, err)
		}
		s.want(s.complete(fmt.Sprint("Refused ", i, ". ", tale("1812"))), "cold")
	}
	s.off("refused restores")
}

func TestAFillDuringWhichTheBackendIsDoubtedIsNotUsed(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var overtake atomic.Pointer[Sharer]
	s, _ := interposed(t, lab.BackendOptions{Model: model, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		backend.ServeHTTP(w, r)
		if sh := overtake.Load(); sh != nil && r.URL.Query().Get("action") == "restore" {
			sh.Doubt("it may have been started anew")
		}
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	overtake.Store(s.server.sharer)
	r := s.complete("Overtaken. " + tale("1812"))
	if s.want(r, "cold"); r.report.Reason != coldUnavailable || r.report.CacheN != 0 {
		t.Errorf("%s, and %d tokens were found in the slot", r.did, r.report.CacheN)
	}
}

// TestACaptureDuringWhichTheBackendIsDoubtedIsNotKept: it may be another model's.
func TestACaptureDuringWhichTheBackendIsDoubtedIsNotKept(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var meanwhile atomic.Pointer[func()]
	s, _ := interposed(t, lab.BackendOptions{Model: model, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if f := meanwhile.Load(); f != nil && r.URL.Path == "/completion" {
			(*f)()
		}
		backend.ServeHTTP(w, r)
	})
	s.server.sharer.Try(&Trial{})
	f := func(name string, do func()) {
		t.Helper()
		s.ready()
		meanwhile.Store(&do)
		if r := s.complete(name + ". " + tale("1812")); r.report.NotKept != errForeign {
			t.Errorf("%s: %s, not kept: %v; expected %v", name, r.did, r.report.NotKept, errForeign)
		}
		meanwhile.Store(nil)
	}
	f("Doubted", func() { s.server.sharer.Doubt("it may have been started anew") })
	f("Replaced", func() { replaceModel(t, model, 2) })
}

// off checks that nothing is shared, and that everything says so.
func (s *sharing) off(after string) {
	s.t.Helper()
	if s.server.sharer.Ready() == nil || testutil.ToFloat64(s.server.metrics.Sharing) != 0 {
		s.t.Errorf("after a backend that %s: ready is %v and sharing %v", after, s.server.sharer.Ready(), testutil.ToFloat64(s.server.metrics.Sharing))
	}
}

func TestTheEndDoesNotWaitForASlotThatIsAtWork(t *testing.T) {
	hang, asked := make(chan struct{}), make(chan struct{}, 10)
	b := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.URL.Path == "/health":
			_, _ = w.Write([]byte("{}"))
		case r.URL.Path == "/props":
			_, _ = w.Write([]byte(`{"total_slots":2,"default_generation_settings":{"n_ctx":4096}}`))
		default:
			asked <- struct{}{}
			<-hang // as llama-server puts off what is asked of a slot at work
		}
	}))
	defer b.Close()
	defer close(hang)
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir = b.URL, t.TempDir()
	sh, err := openSharer(cfg, zerolog.New(zerolog.NewTestWriter(t)), NewMetrics(), false)
	if err != nil {
		t.Fatal(err)
	}
	<-asked
	closed := make(chan struct{})
	go func() {
		_ = sh.Close()
		close(closed)
	}()
	select {
	case <-closed:
	case <-time.After(time.Minute):
		t.Error("it waits for the slot")
	}
}
