package proxy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/configs"
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

// TestASlotThatAStrangerIsAtWorkInIsLeftAlone: there the server would load what it keeps of the
// prompt in memory, with which the stranger's answer would go on.
func TestASlotThatAStrangerIsAtWorkInIsLeftAlone(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{}, nil)
	if !s.live().remembers {
		t.Fatal("the server keeps nothing in memory, or it was not found out")
	}
	first := s.complete(tale("1812"))
	slot := gjson.Get(first.body, "id_slot").Int()
	client := http.Client{Timeout: time.Minute}
	over := make(chan error, 1)
	go func() {
		resp, err := client.Post(s.url+"/completion", "application/json", strings.NewReader(fmt.Sprintf(`{"prompt":"A stranger.","id_slot":%d,"n_predict":3000,"ignore_eos":true}`, slot)))
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
			_ = resp.Body.Close()
		}
		over <- err
	}()
	within(t, "the stranger is at work", func() bool {
		busy, _ := s.server.sharer.backend.Busy(t.Context())
		return slices.Contains(busy, true)
	})
	body, _ := json.Marshal(map[string]any{"prompt": tale("1812") + " Go on.", "n_predict": 1})
	resp, err := client.Post(s.url+"/completion", "application/json", bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(resp.Body)
	if got := gjson.GetBytes(text, "id_slot").Int(); resp.StatusCode != http.StatusOK || got == slot {
		t.Errorf("status %d, %s, in slot %d: expected another", resp.StatusCode, resp.Header.Get("X-SemShareKV"), got)
	}
	if len(over) > 0 {
		t.Error("the stranger was waited for")
	}
	if err := <-over; err != nil {
		t.Error(err)
	}
}

// TestNoTenantFindsWhatTheServerKeepsOfAnother: where a slot holds a beginning of the prompt,
// and the server keeps more of it in memory, of another tenant's.
func TestNoTenantFindsWhatTheServerKeepsOfAnother(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Slots: 1}, func(c *configs.Config) {
		apart(c)
		c.Defaults.MinSimilarity = 1 // nothing but what slots hold
	})
	head := tale("1812")[:300]
	theirs := head + unrelated
	s.want(s.complete(theirs, "X-Tenant", "y"), "cold")
	s.want(s.complete(head+tale("1847")[300:], "X-Tenant", "x"), "cold")
	r := s.complete(theirs, "X-Tenant", "x")
	if n := cached(r.body); n > 0 {
		t.Errorf("%s: %d tokens found, of which x asked for %d", r.did, n, len(head))
	}
}
