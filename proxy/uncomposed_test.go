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
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
)

// ownRoutes are two routes, chosen by a header, that want the model's own.
func ownRoutes(c *configs.Config) {
	for _, reuse := range []configs.Reuse{configs.ReuseOff, configs.ReuseExact} {
		r := configs.Route{Name: string(reuse), Match: configs.Match{Headers: map[string]string{"X-Reuse": string(reuse)}}, Policy: c.Defaults}
		r.Reuse = reuse
		c.Routes = append(c.Routes, r)
	}
}

// TestTheModelsOwnAnswerFindsNothingComposed: whoever wants it, and however it is asked for.
func TestTheModelsOwnAnswerFindsNothingComposed(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{NoRAMCache: true}, ownRoutes)
	text, _ := json.Marshal(tale("1847"))
	completion := `{"n_predict":1,"prompt":` + string(text) + `}`
	chat := `{"max_tokens":1,"messages":[{"role":"user","content":` + string(text) + `}]}`
	first := func(body string) string { return strings.Replace(body, "1847", "1812", 1) }
	s.post("/completion", first(completion))
	s.post("/v1/messages", first(chat))
	f := func(path, body string, headers ...string) {
		t.Helper()
		if err := s.server.sharer.EmptySlots(t.Context()); err != nil {
			t.Fatal(err)
		}
		composed := completion
		if strings.Contains(body, "messages") {
			composed = chat
		}
		s.want(s.post(path, composed), "shared")
		r := s.post(path, body, headers...)
		if n := cached(r.body); r.status != http.StatusOK || n > 0 || r.state() != "cold" {
			t.Errorf("%s, %v, %.50s: status %d, %q, %d tokens found in the cache; expected none", path, headers, body, r.status, r.did, n)
		}
	}
	deep := strings.Replace(completion, "{", `{"x":`+strings.Repeat("[", maxDepth)+strings.Repeat("]", maxDepth)+`,`, 1)
	f("/completion", completion, "X-SemShareKV", "off")
	f("/completion", strings.Replace(completion, "{", `{"n":2,`, 1), "X-SemShareKV", "off")
	f("/completion", deep, "X-SemShareKV", "off")
	f("/v1/messages", chat, "X-SemShareKV", "off")
	f("/v1/messages", chat, "X-Reuse", "exact")
	f("/completion", completion, "X-Reuse", "off")
	f("/completion", completion, "X-Reuse", "exact")
	s.want(s.post("/completion", completion, "X-Reuse", "exact"), "exact") // by now its own stands in a slot
}

// TestTheModelsOwnAnswerFindsNothingThatTheSidecarBeforeComposed, neither before the first
// probe nor after it, from when on it goes as it came.
func TestTheModelsOwnAnswerFindsNothingThatTheSidecarBeforeComposed(t *testing.T) {
	text, _ := json.Marshal(tale("1847"))
	completion := `{"n_predict":1, "prompt":` + string(text) + `}`
	chat := `{"max_tokens":1, "messages":[{"role":"user","content":` + string(text) + `}]}`
	t.Run("a completion", func(t *testing.T) { testTheSidecarBefore(t, "/completion", "/completion", completion) })
	t.Run("one that takes no word about the cache", func(t *testing.T) { testTheSidecarBefore(t, "/v1/chat/completions", "/v1/messages", chat) })
}

func testTheSidecarBefore(t *testing.T, composedBy, path, body string) {
	model := filepath.Join(t.TempDir(), "model.gguf")
	replaceModel(t, model, 1)
	var loading atomic.Bool
	var sent atomic.Pointer[string]
	s, _ := interposed(t, lab.BackendOptions{Model: model, NoRAMCache: true}, func(backend http.Handler, w http.ResponseWriter, r *http.Request) {
		if loading.Load() && r.URL.Path == "/health" {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		got, _ := io.ReadAll(r.Body)
		if r.URL.Path == path {
			text := string(got)
			sent.Store(&text)
		}
		r.Body = io.NopCloser(bytes.NewReader(got))
		backend.ServeHTTP(w, r)
	})
	s.server.sharer.Try(&Trial{})
	s.want(s.post(composedBy, strings.Replace(body, "1847", "1812", 1)), "cold")
	s.want(s.post(composedBy, body), "shared")
	if err := s.server.Shutdown(t.Context()); err != nil {
		t.Fatal(err)
	}
	loading.Store(true)
	s = unprobed(t, s.backend, nil)
	if n := cached(s.post(path, body, "X-SemShareKV", "off").body); n > 0 {
		t.Errorf("before the probe: %d tokens found in the cache; expected none", n)
	}
	loading.Store(false)
	s.ready()
	r := s.post(path, body, "X-SemShareKV", "off")
	if n := cached(r.body); n > 0 || *sent.Load() != body {
		t.Errorf("after the probe: %d tokens found in the cache, sent as %.50s; expected none, and %.50s", n, *sent.Load(), body)
	}
}

// TestOffGoesAsItCameUntilSomethingIsComposed, byte for byte.
func TestOffGoesAsItCameUntilSomethingIsComposed(t *testing.T) {
	f := func(composed bool, reuse configs.Reuse, path, body, want string) {
		t.Helper()
		sh := &Sharer{metrics: NewMetrics()}
		sh.composed.Store(composed)
		g := &request{Endpoint: endpoints[path], Body: []byte(body), Off: offByHeader, Uncomposed: true}
		g.Policy.Reuse = reuse
		d := sh.prepare(t.Context(), g)
		d.finish(t.Context(), outcome{})
		if got := string(d.Body); got != want || d.Header != "cold; reason="+offByHeader && reuse == configs.ReuseOff {
			t.Errorf("composed %v, %s %s: sent as %s, %q; expected %s", composed, path, body, got, d.Header, want)
		}
	}
	body := `{"prompt": "a",  "n_predict":1}`
	for _, reuse := range []configs.Reuse{configs.ReuseOff, configs.ReuseExact, configs.ReuseFuzzy} {
		f(false, reuse, "/completion", body, body)
		f(true, reuse, "/completion", body, `{"prompt":"a","n_predict":1,"cache_prompt":false}`)
		f(true, reuse, "/v1/messages", body, body) // there it would say nothing
	}
}

// TestASlotThatAProbeLeftUnknownIsStillInherited, and one that it emptied is not.
func TestASlotThatAProbeLeftUnknownIsStillInherited(t *testing.T) {
	sh := &Sharer{}
	sh.inherited.Store(true)
	book := newSlots(2)
	book.all[1].generation = unknown
	sh.disinherit(book)
	if !sh.inherited.Load() {
		t.Error("nothing is inherited, though a slot is not known")
	}
	if sh.disinherit(newSlots(2)); sh.inherited.Load() {
		t.Error("something is inherited, though all slots are empty")
	}
}

// TestShiftedKVIsNotKept: what the server moved by itself (--cache-reuse) is no reference,
// nor what continues it; an answer that the client sends along with its next question is.
func TestShiftedKVIsNotKept(t *testing.T) {
	s := startTiny(t, lab.BackendOptions{Slots: 1, CacheReuse: 32, NoRAMCache: true}, func(c *configs.Config) {
		c.Defaults.MinSimilarity = 1
		ownRoutes(c)
	})
	count := func(result string) float64 {
		return testutil.ToFloat64(s.server.metrics.Captures.WithLabelValues(result))
	}
	f := func(name string, r reply, result string, before float64) {
		t.Helper()
		if n := count(result); n != before+1 {
			t.Errorf("%s: %s, cache_n %d of %d: %q was counted %v times, expected once more than %v", name, r.did, r.report.CacheN, len(r.report.Tokens), result, n, before)
		}
	}
	first := s.complete("Listen. Once more. " + tale("1812"))
	f("the first prompt", first, "kept", 0)
	s.dropAll() // else it would be shared
	moved := s.complete("Listen. " + tale("1812"))
	if moved.state() != "cold" || moved.report.CacheN < len(moved.report.Tokens)/2 {
		t.Fatalf("%s, cache_n %d of %d: expected that the server moves most of the prompt", moved.did, moved.report.CacheN, len(moved.report.Tokens))
	}
	f("moved", moved, errUnknown.Error(), 0)
	f("what continues it", s.complete("Listen. "+tale("1812")+unrelated), errUnknown.Error(), 1)
	if r := s.complete("Listen. "+tale("1812"), "X-Reuse", "exact"); r.state() != "cold" || r.report.CacheN != 0 {
		t.Errorf("by a route that is exact: %s, %d tokens found: expected none", r.did, r.report.CacheN)
	}

	if err := s.server.sharer.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	question := s.complete(unrelated)
	next := unrelated + gjson.Get(question.body, "content").String() + " " + tale("1847")
	r := s.complete(next)
	if r.report.CacheN <= len(question.report.Tokens) {
		t.Fatalf("%d tokens found of a question of %d and its answer", r.report.CacheN, len(question.report.Tokens))
	}
	f("the next question", r, "kept", 2)

	// Clients that hang up, as by "Stop" in a chat.
	s.dropAll()
	s.hangUp(next + " Go on. " + unrelated)
	r = s.complete(next + " Go on. " + unrelated + " Once more.")
	if r.report.CacheN <= len(question.report.Tokens) {
		t.Fatalf("%d tokens found of what was broken off", r.report.CacheN)
	}
	f("the question after one that was broken off", r, "kept", 3)
	if err := s.server.sharer.Forget(t.Context()); err != nil {
		t.Fatal(err)
	}
	f("a prompt to move", s.complete("Listen. Once more. "+tale("1812")), "kept", 4)
	s.dropAll()
	s.hangUp("Listen. " + tale("1812"))
	f("what was moved for one that was broken off", s.complete("Listen. "+tale("1812")+unrelated), errUnknown.Error(), 2)
}

// hangUp sends a prompt and leaves once the answer has begun.
func (s *sharing) hangUp(prompt string) {
	s.t.Helper()
	body, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 1000, "ignore_eos": true, "stream": true})
	resp, err := http.Post(s.url+"/completion", "application/json", bytes.NewReader(body))
	if err != nil {
		s.t.Fatal(err)
	}
	_, err = resp.Body.Read(make([]byte, 1))
	_ = resp.Body.Close()
	if err == nil {
		err = s.server.sharer.Drain(s.t.Context())
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// TestComposedSlotsAreEmptiedWhileSharingIsOff, once, and those at work are left alone.
func TestComposedSlotsAreEmptiedWhileSharingIsOff(t *testing.T) {
	var mu sync.Mutex
	var asked []string
	atWork := true
	backend := startBackend(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		asked = append(asked, r.Method+" "+r.URL.Path)
		if r.Method == http.MethodGet {
			_, _ = fmt.Fprintf(w, `[{"is_processing":false},{"is_processing":%v}]`, atWork)
			return
		}
		_, _ = w.Write([]byte("{}"))
	})
	sh := &Sharer{metrics: NewMetrics(), backend: bridge.NewBackend(backend.URL, "", time.Second)}
	sh.composed.Store(true)
	sh.uncleared.Store(&bridge.Props{Slots: 2})
	f := func(name string, want ...string) {
		t.Helper()
		asked = nil
		sh.prepare(t.Context(), &request{Endpoint: EndpointMessages, Body: []byte(`{}`), Off: offByHeader, Uncomposed: true}).finish(t.Context(), outcome{})
		if !slices.Equal(asked, want) {
			t.Errorf("%s: the backend was asked %q, expected %q", name, asked, want)
		}
	}
	f("one at work", "GET /slots", "POST /slots/0")
	atWork = false
	f("all idle", "GET /slots", "POST /slots/0", "POST /slots/1")
	f("emptied before")
	lv := &live{slots: newSlots(2)}
	sh.live.Store(lv)
	f("nothing composed by the book")
	lv.slots.all[1].generation = 1
	f("one composed by the book", "GET /slots", "POST /slots/1")
}
