package proxy

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// startFast starts a server whose model, of a token a byte, is so small that it counts as a
// GPU's.
func startFast(t *testing.T) *sharing {
	t.Helper()
	model := tinymodel.Make(t, tinymodel.Options{Context: 16384})
	s := startSharing(t, lab.BackendOptions{Model: model, Context: 32768, Preload: agentLibrary(t)}, func(c *configs.Config) { c.Backend.Way = "agent" })
	s.live().parts.worth = true // also where the machine is too busy for the probe to find it fast
	return s
}

// long is a text of parts, with a year in front.
func long(year string) string {
	return strings.TrimSpace(strings.Repeat("In the year "+year+" nothing happened. ", 2) + strings.Repeat(tale("1812")+" ", 2*partBytes/len(tale("1812"))+1))
}

// TestLongTextsAreTokenisedInParts: they are shared, and captured, as if they were not.
func TestLongTextsAreTokenisedInParts(t *testing.T) {
	s := startFast(t)
	tokens, exact, err := s.live().tokens(t.Context(), "", &Prompt{Kind: PromptText, Text: long("1833")})
	if err != nil || exact == nil {
		t.Fatalf("%v: the text was not cut", err)
	}
	if whole, err := exact.wait(t.Context()); err != nil || !slices.Equal(whole, tokens) {
		t.Fatalf("%v: %d tokens, as a whole %d", err, len(tokens), len(whole))
	}
	s.want(s.complete(long("1833")), "cold")
	s.mustTry()
	r := s.complete(long("1847"))
	s.want(r, "shared")
	if n := len(r.report.Tokens); r.report.CacheN < n*8/10 {
		t.Errorf("of %d tokens %d were in the cache", n, r.report.CacheN)
	}
	if s.live().parts.wrong.Load() {
		t.Error("the parts are taken to have other tokens than the whole")
	}
}

// mustTry has what follows be shared even where it takes longer than to compute so small a
// model.
func (s *sharing) mustTry() {
	s.server.sharer.Try(&Trial{})
	s.t.Cleanup(func() { s.server.sharer.Try(nil) })
}

// TestPartsThatAreWrongAreNotUsedAgain: where parts have other tokens than the whole, what was
// filled by them is not used, nothing is captured by them, and later texts are tokenised whole.
func TestPartsThatAreWrongAreNotUsedAgain(t *testing.T) {
	f := func(state string, prepare func(s *sharing)) {
		t.Run(state, func(t *testing.T) {
			s := startFast(t)
			prepare(s)
			before := s.live().store.Stats().References
			lying := bridge.NewBackend(addsTokens(t, s.backend.URL), "", time.Minute)
			t.Cleanup(lying.Close)
			s.live().tokenizer.backend = lying
			s.want(s.complete(long("1847")), "cold")
			if !s.live().parts.wrong.Load() {
				t.Fatal("that the parts have other tokens went unnoticed")
			}
			if n := s.live().store.Stats().References; n != before {
				t.Errorf("%d references: expected %d", n, before)
			}
			s.complete(long("1833")) // is kept, where nothing was yet
			s.mustTry()
			s.want(s.complete(long("1862")), "shared")
		})
	}
	f("nothing to share", func(*sharing) {})
	f("something to share", func(s *sharing) {
		s.want(s.complete(long("1800")), "cold")
		s.mustTry()
	})
}

// TestPartsThatAreNotUsedSayNothing: neither a prompt that is refused nor one that comes too
// late tells that parts are wrong.
func TestPartsThatAreNotUsedSayNothing(t *testing.T) {
	s := startFast(t)
	f := func(what, prompt, reason string) {
		t.Helper()
		body, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 1})
		if r := s.post("/completion", string(body)); r.did != "cold; reason="+reason {
			t.Errorf("%s: the sidecar did %q", what, r.did)
		}
		if s.live().parts.wrong.Load() {
			t.Fatalf("%s: the parts are taken to have other tokens than the whole", what)
		}
	}
	f("more than a slot takes", strings.Repeat(long("1833"), 3), "prompt too long")
	cfg := *s.server.config.Load()
	cfg.Defaults.Budget = time.Microsecond
	s.server.config.Store(&cfg)
	s.live().costs = newCosts(&bridge.Probed{}, 1) // that a prefill takes long would give it time
	f("no time", long("1833"), "time budget")
}

// addsTokens is a server before the backend that adds a token to what parts are.
func addsTokens(t *testing.T, backend string) string {
	to, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	through := httputil.NewSingleHostReverseProxy(to)
	through.ModifyResponse = func(r *http.Response) error {
		var reply struct {
			Tokens []int32 `json:"tokens"`
		}
		body, err := io.ReadAll(r.Body)
		if err != nil || json.Unmarshal(body, &reply) != nil {
			return err
		}
		if n := len(reply.Tokens); n > 0 && n < 2*partBytes {
			body, _ = json.Marshal(map[string]any{"tokens": append(reply.Tokens, 'x')})
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		r.ContentLength = int64(len(body))
		r.Header.Del("Content-Length")
		return nil
	}
	srv := httptest.NewServer(through)
	t.Cleanup(srv.Close)
	return srv.URL
}
