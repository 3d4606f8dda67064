package proxy

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestAWrongSlotDirectoryIsTriedAgainWhenTheServerIsAnother, and not every minute: each try
// empties a slot. All leave one file in the server's own directory.
func TestAWrongSlotDirectoryIsTriedAgainWhenTheServerIsAnother(t *testing.T) {
	if testing.Short() {
		t.Skip("needs a real llama-server")
	}
	model := tinymodel.Make(t, tinymodel.Options{})
	b := lab.StartBackend(t, lab.BackendOptions{Model: model, Context: 1024})
	to, err := url.Parse(b.URL)
	if err != nil {
		t.Fatal(err)
	}
	var saves atomic.Int32
	pass := httputil.NewSingleHostReverseProxy(to)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Get("action") == "save" {
			saves.Add(1)
		}
		pass.ServeHTTP(w, r)
	}))
	defer front.Close()
	cfg := configs.Default()
	cfg.Backend.URL, cfg.Backend.SlotDir = front.URL, t.TempDir()
	sh := &Sharer{cfg: cfg, log: zerolog.Nop(), metrics: NewMetrics(), backend: bridge.NewBackend(cfg.Backend.URL, "", time.Second),
		scales: scales{turn: newGate()}, kernels: bridge.GoKernels()}
	w := &watch{sh: sh, probeRun: newID()}
	defer sh.backend.Close()
	f := func(what string, want int32) {
		t.Helper()
		if wait := w.connect(context.Background()); wait != probeEvery {
			t.Errorf("%s: looked at again in %v, want %v", what, wait, probeEvery)
		}
		if err := sh.Ready(); err == nil || !strings.Contains(err.Error(), "--slot-dir") {
			t.Errorf("%s: %v, want that the directory is another", what, err)
		}
		if saves.Load() != want {
			t.Errorf("%s: tried out %d times, want %d", what, saves.Load(), want)
		}
		if sh.hold.ended != nil {
			t.Errorf("%s: requests are held", what)
		}
	}
	f("at first", 1)
	f("a second later", 1)
	w.refused.until = time.Now()
	f("after the pause", 2)
	if err := b.Restart(context.Background()); err != nil {
		t.Fatal(err)
	}
	f("another server", 3)
	left, err := os.ReadDir(b.SlotDir)
	if err != nil || len(left) != 1 {
		t.Errorf("the server's directory has %v (%v), want one file", left, err)
	}
}

func TestWhatCannotBeSharedIsLeftAloneForLongerEachTime(t *testing.T) {
	var r refusal
	most := maxReprobe
	f := func(props bridge.Props, model string, want time.Duration) {
		t.Helper()
		if r.again(props, model, most); r.pause != want {
			t.Errorf("left alone for %v, want %v", r.pause, want)
		}
		if !r.stands(props, model) || r.stands(props, model+"other") || r.stands(bridge.Props{Slots: 9}, model) {
			t.Error("it is not just this backend that is left alone")
		}
	}
	one := bridge.Props{Slots: 1}
	for _, m := range []time.Duration{1, 2, 4, 8, 16, 32, 60, 60} {
		f(one, "a", m*time.Minute)
	}
	f(one, "b", time.Minute)
	f(bridge.Props{Slots: 2}, "b", time.Minute)
	most = maxReask
	for _, m := range []time.Duration{2, 4, 5, 5} {
		f(bridge.Props{Slots: 2}, "b", m*time.Minute)
	}
}
