package proxy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// dying passes all on to a real server, which it kills, and starts again, where it is asked to
// restore a recipe. deaths counts.
func dying(t *testing.T, b *lab.Backend, deaths *int) string {
	t.Helper()
	to, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	pass := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		// Of the probe's files the second gets the recipe.
		if r.URL.Query().Get("action") == "restore" && strings.Contains(string(body), "-p1.state") {
			*deaths++
			b.Kill()
			if err := b.Launch(context.Background()); err != nil {
				t.Error(err)
			}
			panic(http.ErrAbortHandler)
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		pass.ServeHTTP(w, r)
	}))
	t.Cleanup(front.Close)
	return front.URL
}

// TestAnAgentThatEndsTheBackendIsTriedOnce: what starts the backend again would be in vain if
// it were.
func TestAnAgentThatEndsTheBackendIsTriedOnce(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	model := filepath.Join(t.TempDir(), "tiny.gguf")
	if err := tinymodel.WriteFile(model, tinymodel.Options{}); err != nil {
		t.Fatal(err)
	}
	b := lab.StartBackend(t, lab.BackendOptions{Model: model, Context: 1024, Preload: agentLibrary(t)})
	deaths := 0
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir, cfg.Backend.Library = dying(t, b, &deaths), b.SlotDir, "../bin/libsemshare.so"
	sh := &Sharer{cfg: cfg, log: zerolog.Nop(), metrics: NewMetrics(), backend: bridge.NewBackend(cfg.Backend.URL, "", time.Second), scales: scales{turn: make(chan struct{}, 1)}}
	sh.loadKernels()
	defer sh.backend.Close()
	if _, err := sh.probe(context.Background()); err == nil {
		t.Fatal("the backend was lost while it was probed: no error")
	}
	lv, err := sh.probe(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer lv.close()
	if deaths != 1 || lv.agent() {
		t.Errorf("the backend died %d times, and the agent fills slots: %v; want once, and that it does not", deaths, lv.agent())
	}
	lv.probed.Props.Build += " of tomorrow"
	prober := bridge.Prober{Backend: sh.backend, Props: lv.probed.Props, Dir: b.SlotDir, Model: lv.model, Kernels: sh.kernels}
	if err := sh.chooseWay(context.Background(), lv, prober); err == nil || deaths != 2 {
		t.Errorf("another build died %d times (%v): want that the agent is tried anew", deaths-1, err)
	}
}

// A server that survives the try-out and dies of recipes is not given them for ever.
func TestLossesByRecipesEndTheAgent(t *testing.T) {
	sh := &Sharer{log: zerolog.Nop(), cfg: configs.Default()}
	lv := func() *live { return &live{probed: &bridge.Probed{Props: bridge.Props{Build: "b", ModelPath: "m"}}} }
	for i := range maxFailures {
		if sh.losses.many(lv().buildAndModel()) {
			t.Fatalf("given up after %d losses; want %d", i, maxFailures)
		}
		lv().agentFailed(sh, fmt.Errorf("a recipe: %w", bridge.ErrLost))
	}
	next := lv()
	if err := sh.tryAgent(context.Background(), next, bridge.Prober{}); !errors.Is(err, errAgentFatal) {
		t.Errorf("tried again after %d losses: %v", maxFailures, err)
	}
	if sh.losses.many("another") {
		t.Error("another build or model is to blame too")
	}
}
