package proxy

import (
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/internal/lab/tinymodel"
)

// TestHopeless: whether a prompt is looked up depends on its length and the backend's
// speed, but not where the backend could not be left to itself, or in a trial.
func TestHopeless(t *testing.T) {
	f := func(name string, p *bridge.Probed, text int, change func(*decision), want bool) {
		t.Helper()
		d := &decision{lv: &live{costs: newCosts(p, 32<<10)}, book: newSlots(2),
			req: &request{Tenant: "us", Prompt: Prompt{Text: strings.Repeat("a", text)}, Policy: configs.Default().Defaults}}
		if change != nil {
			change(d)
		}
		if got := d.hopeless(); got != want {
			t.Errorf("%s, %d bytes: hopeless is %v, want %v", name, text, got, want)
		}
	}
	held := func(tenant string) func(*decision) {
		return func(d *decision) { d.book.all[1].tenant, d.book.all[1].tokens = tenant, []int32{1} }
	}
	f("GPU, small model", gpu(24), 4000, nil, true)
	f("GPU, small model", gpu(24), 100_000, nil, false)
	f("GPU, larger model", gpu(100), 200, nil, true)
	f("GPU, larger model", gpu(100), 20_000, nil, false)
	f("CPU", slow(7), 50, nil, false)
	f("times unknown", &bridge.Probed{}, 4000, nil, false)
	f("token ids", gpu(24), 0, func(d *decision) {
		d.req.Prompt = Prompt{Kind: PromptParts, Parts: []PromptPart{{Tokens: make([]int32, 2000)}}}
	}, true)
	f("trial", gpu(24), 4000, func(d *decision) { d.trial = &Trial{} }, false)
	f("exact", gpu(24), 4000, func(d *decision) { d.req.Policy.Reuse = configs.ReuseExact }, false)
	f("tenants", gpu(24), 4000, func(d *decision) { d.req.Policy.Tenant.Source = "api_key" }, false)
	f("a slot holds ours", gpu(24), 4000, held("us"), false)
	f("a slot holds another's", gpu(24), 4000, held("them"), true)
}

// TestTokensOf: whatever form the prompt has.
func TestTokensOf(t *testing.T) {
	f := func(p Prompt, want int) {
		t.Helper()
		if got := p.tokensOf(leastBytes); got != want {
			t.Errorf("%+v: %d tokens, want %d", p, got, want)
		}
	}
	f(Prompt{Kind: PromptText, Text: "twelve bytes"}, 6)
	f(Prompt{Kind: PromptParts, Parts: []PromptPart{{Tokens: []int32{1, 2, 3}}}}, 3)
	f(Prompt{Kind: PromptParts, Parts: []PromptPart{{Text: "four"}, {Tokens: []int32{1, 2, 3}}}}, 5)
	f(Prompt{Kind: PromptChat, Chat: []byte(`{"messages":[]}`)}, 7)
	f(Prompt{Kind: PromptInfill, Infill: Infill{Prefix: "ab", Suffix: "cd", Prompt: "ef", Extra: []InfillFile{{Text: "gh"}}}}, 4)
}

// TestSharingAsksNothingWhereItCannotPay: a backend that is faster than any look-up gets
// the request as it came, and what it takes is learnt nevertheless.
func TestSharingAsksNothingWhereItCannotPay(t *testing.T) {
	model := tinymodel.Make(t, tinymodel.Options{})
	s := startSharing(t, lab.BackendOptions{Model: model, Context: 2048, Threads: 1}, nil)
	known := s.live().costs.model().Short
	prompt := strings.Repeat("as fast as that ", 9)
	for range 2 {
		r := s.complete(prompt)
		if r.did != "cold; reason="+coldNoGain || len(r.report.Tokens) > 0 {
			t.Errorf("the sidecar did %q, with %d tokens known: want it cold for %q with none", r.did, len(r.report.Tokens), coldNoGain)
		}
		if !strings.Contains(r.body, `"content"`) {
			t.Errorf("the answer is %s", r.body)
		}
	}
	if s.live().costs.model().Short == known {
		t.Error("nothing was learnt of the backend's times")
	}
}
