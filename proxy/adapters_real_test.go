package proxy

import (
	"encoding/json"
	"net/http"
	"path/filepath"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// adapted starts a sidecar beside a server of one slot that has an adapter and applies it.
func adapted(t *testing.T) *sharing {
	t.Helper()
	adapter := filepath.Join(t.TempDir(), "adapter.gguf")
	if err := tinymodel.WriteAdapter(adapter, 128, 64, 1); err != nil { // the tiny model's
		t.Fatal(err)
	}
	return startTiny(t, lab.BackendOptions{Slots: 1, LoRA: adapter, NoRAMCache: true}, nil)
}

// completeBy names adapters.
func (s *sharing) completeBy(lora, prompt string) reply {
	s.t.Helper()
	b, _ := json.Marshal(map[string]any{"prompt": prompt, "n_predict": 4, "temperature": 0, "n_probs": 50, "lora": json.RawMessage(lora)})
	return s.post("/completion", string(b))
}

func (s *sharing) kept() int { return s.live().store.Stats().References }

// TestWhatARequestsAdaptersComputeIsItsOwn: it serves requests that name the same adapters,
// from the slot that it is in, and nobody else.
func TestWhatARequestsAdaptersComputeIsItsOwn(t *testing.T) {
	const weak = `[{"id":0,"scale":0.25}]`
	s := adapted(t)
	s.want(s.complete(tale("1812")), "cold")
	r := s.completeBy(weak, unrelated)
	if r.did != "cold; reason="+offLoRA || s.kept() != 1 {
		t.Errorf("a request with adapters: %q, and %d references; want cold for them, and one", r.did, s.kept())
	}
	s.want(s.completeBy(weak, unrelated+" And so on."), "exact")
	r = s.complete(unrelated)
	s.want(r, "cold")
	if n := cached(r.body); n != 0 {
		t.Errorf("of %d tokens that other adapters computed the backend took %d for its own", len(r.report.Tokens), n)
	}
	direct := s.direct(tale("1847"))
	s.want(s.completeBy(weak, tale("1847")), "cold")
	r = s.complete(tale("1847"))
	s.want(r, "shared")
	if d := farthest(topLogprobs(direct), topLogprobs(r.body)); d > 0.5 || r.report.RestoreFailed {
		t.Errorf("in the slot of a request with adapters the log-probabilities are up to %.2f off the cold ones", d)
	}
	// One that is in no slot of the book.
	body, _ := json.Marshal(map[string]any{"prompt": tale("1913"), "n_predict": 1, "n": 2, "lora": json.RawMessage(weak)})
	s.post("/completion", string(body))
	if s.live().slots.longestPrefix(s.live().slots.all[0].tenant, r.report.Tokens, unknown) > 0 {
		t.Error("the book believes in a slot that a request with adapters may have had")
	}
}

// TestScalesThatAreSetPartReferences: what one scale computed serves no other, from the
// moment on that it is set through the sidecar.
func TestScalesThatAreSetPartReferences(t *testing.T) {
	s := adapted(t)
	s.want(s.complete(tale("1812")), "cold")
	s.want(s.complete(tale("1847")), "shared")
	set := func(scale string) {
		t.Helper()
		before := s.live()
		if r := s.post("/lora-adapters", `[{"id":0,"scale":`+scale+`}]`); r.status != http.StatusOK {
			t.Fatalf("status %d: %s", r.status, r.body)
		}
		for end := time.Now().Add(2 * time.Minute); s.live() == before || s.server.sharer.Ready() != nil; time.Sleep(20 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatal("the backend was not probed again")
			}
		}
	}
	before := s.live()
	if r := s.post("/lora-adapters", `[{"id":0,"scale":1}]`); r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	within(t, "the backend is asked for its scales", func() bool { return len(s.server.sharer.scales.turn) == 0 })
	if s.live() != before {
		t.Error("scales that were set before had the backend probed again")
	}
	s.want(s.complete(tale("1846")), "shared")
	set("0")
	r := s.complete(tale("1848"))
	s.want(r, "cold")
	if n := gjson.Get(r.body, "timings.cache_n").Int(); n != 0 {
		t.Errorf("%d tokens were taken that another scale computed", n)
	}
	s.want(s.complete(tale("1849")), "shared")
	if r := s.post("/lora-adapters", `{}`); r.status == http.StatusOK || s.live() == nil {
		t.Error("what the backend refused had it probed again")
	}
	set("1")
	s.want(s.complete(tale("1850")), "shared")
}
