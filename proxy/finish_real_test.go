package proxy

import (
	"context"
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
)

// TestTheBookKnowsWhatIsInASlotAfterAnAnswerThatWasNone: one that the client stopped, one that
// the server refused, and several at once.
func TestTheBookKnowsWhatIsInASlotAfterAnAnswerThatWasNone(t *testing.T) {
	s := startSharing(t, lab.BackendOptions{Context: 4096, Slots: 2, NoRAMCache: true}, nil)
	f := func(name, prompt string) {
		t.Helper()
		r := s.complete(prompt)
		if r.state() != "exact" || r.report.CacheN < len(r.report.Tokens)*9/10 {
			t.Errorf("%s: %s, cache_n %d of %d", name, r.did, r.report.CacheN, len(r.report.Tokens))
		}
	}
	s.giveUp(tale("1812"))
	if r := s.complete(tale("1812")); r.report.CacheN < len(r.report.Tokens)*9/10 {
		t.Errorf("given up while it was computed: %s, cache_n %d of %d", r.did, r.report.CacheN, len(r.report.Tokens))
	}
	s.hangUp(tale("1812") + " Go on.")
	f("stopped", tale("1812")+" Go on.")
	s.want(s.complete(unrelated), "cold")

	ask := func(prompt, parameter string) reply {
		text, _ := json.Marshal(prompt)
		return s.post("/completion", `{"n_predict":1,`+parameter+`,"prompt":`+string(text)+`}`)
	}
	if r := ask(unrelated, `"grammar":"root ::= ("`); r.status != http.StatusBadRequest || r.state() != "exact" {
		t.Fatalf("status %d, %s: expected 400 and an exact prefix", r.status, r.did)
	}
	f("refused", unrelated)
	f("beside it", tale("1812"))

	if r := ask("Once upon a time", `"n":2`); r.status != http.StatusOK {
		t.Fatalf("status %d: %s", r.status, r.body)
	}
	for _, prompt := range []string{tale("1812"), unrelated} {
		if r := s.complete(prompt); r.state() == "exact" {
			t.Errorf("after several answers: %s, cache_n %d of %d", r.did, r.report.CacheN, len(r.report.Tokens))
		}
	}
}

// giveUp sends a prompt, shorter than a batch, and leaves while it is computed.
func (s *sharing) giveUp(prompt string) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	text, _ := json.Marshal(prompt)
	req, _ := http.NewRequestWithContext(ctx, http.MethodPost, s.url+"/completion", strings.NewReader(`{"n_predict":1000,"ignore_eos":true,"prompt":`+string(text)+`}`))
	over := make(chan struct{})
	go func() {
		defer close(over)
		if resp, err := http.DefaultClient.Do(req); err == nil {
			_ = resp.Body.Close()
		}
	}()
	within(s.t, "the prompt is computed", func() bool {
		busy, _ := s.server.sharer.backend.Busy(s.t.Context())
		return slices.Contains(busy, true)
	})
	cancel()
	<-over
	if err := s.server.sharer.Drain(s.t.Context()); err != nil {
		s.t.Fatal(err)
	}
}
