package eval

import (
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// A backend that was started without --slot-save-path never becomes one that can be
// shared.
func TestABackendThatRefusesIsNotWaitedFor(t *testing.T) {
	backend := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/health":
		case "/lora-adapters":
			_, _ = io.WriteString(w, "[]")
		case "/props":
			_, _ = io.WriteString(w, `{"total_slots":2,"model_path":"none.gguf","default_generation_settings":{"n_ctx":4096}}`)
		default:
			w.WriteHeader(http.StatusNotImplemented)
			_, _ = io.WriteString(w, `{"error":{"message":"This server does not support slots action."}}`)
		}
	}))
	defer backend.Close()
	dir := t.TempDir()
	cfg := measured(backend.URL, dir)
	cfg.Index.Redis = lab.StartRedis(t).URL
	o := Options{Config: cfg, Pairs: writeShortPairs(t, dir), Out: filepath.Join(dir, "out"), AnswerTokens: 1, Progress: io.Discard}
	began := time.Now()
	err := Run(t.Context(), o)
	if err == nil || !strings.Contains(err.Error(), "--slot-save-path") {
		t.Errorf("%v; want it to name --slot-save-path", err)
	}
	if err != nil && strings.Contains(err.Error(), "redis") {
		t.Errorf("%v; the index was closed twice", err)
	}
	if took := time.Since(began); took > 20*time.Second {
		t.Errorf("it took %v", took)
	}
}
