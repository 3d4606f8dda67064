package proxy

import (
	"net/http"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// unheardOf is an endpoint that the sidecar does not know.
const unheardOf = "/v1/unheard-of"

// TestFillsThatUnpinnedRequestsOverrunAreNotTheBackendsFault; those that others overran, of
// which the sidecar knows nothing, may be.
func TestFillsThatUnpinnedRequestsOverrunAreNotTheBackendsFault(t *testing.T) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var overrun atomic.Pointer[func()]
	s, _ := interposed(t, lab.BackendOptions{Model: model, Slots: 1, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == unheardOf {
			r.URL.Path = "/completion"
		}
		backend.ServeHTTP(w, r)
		if r.URL.Query().Get("action") == "restore" {
			if f := overrun.Swap(nil); f != nil {
				(*f)()
			}
		}
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.complete(tale("1812")), "cold")
	other := func(url, path string) func() {
		return func() {
			req, _ := http.NewRequest(http.MethodPost, url+path, strings.NewReader(`{"prompt":"Something else.","n_predict":1}`))
			req.Header.Set("X-SemShareKV", "off")
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				t.Error(err)
				return
			}
			_ = resp.Body.Close()
		}
	}
	mismatches := 0.0
	f := func(name string, do func()) {
		t.Helper()
		for range maxStrikes {
			if err := s.server.sharer.Ready(); err != nil {
				t.Fatalf("%s: nothing is shared: %v", name, err)
			}
			overrun.Store(&do)
			s.complete(name + ". " + tale("1812"))
			mismatches++
			if got := testutil.ToFloat64(s.server.metrics.Mismatches); got != mismatches {
				t.Fatalf("%s: %v mismatches are counted, expected %v", name, got, mismatches)
			}
		}
	}
	f("Through the sidecar", other(s.url, "/completion"))
	f("At an endpoint that it does not know", other(s.url, unheardOf))
	f("Around it", other(s.backend.URL, "/completion"))
	s.off("repeatedly did not take what was filled in")
}
