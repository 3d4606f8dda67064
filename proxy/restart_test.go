package proxy

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// A model that could not be opened when the backend was probed is used once it can; one that
// can, and is no model, is no reason to probe again.
func TestAModelFileThatComesLaterIsUsed(t *testing.T) {
	path := filepath.Join(t.TempDir(), "model.gguf")
	cfg := configs.Default()
	cfg.Backend.Model = path
	b := bridge.NewBackend(startBackend(t, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }).URL, "", time.Minute)
	defer b.Close()
	sh := &Sharer{cfg: cfg, log: zerolog.Nop(), backend: b}
	probed := func() *live {
		lv := &live{ctx: t.Context(), probed: &bridge.Probed{}}
		lv.model, lv.unopened = sh.openModel(bridge.Props{})
		return lv
	}
	lv := probed()
	if what := sh.changed(lv); lv.model != nil || what != "" {
		t.Errorf("without a file %q changed", what)
	}
	if err := os.WriteFile(path, []byte("no model"), 0o600); err != nil {
		t.Fatal(err)
	}
	if what := sh.changed(lv); what != modelOpens {
		t.Errorf("a file came: %q changed, want %q", what, modelOpens)
	}
	if what := sh.changed(probed()); what != "" {
		t.Errorf("a file that is no model: %q changed", what)
	}
}
