package proxy

import (
	"encoding/json"
	"net/http"
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
		if s.want(r, "exact"); r.report.CacheN < len(r.report.Tokens)*9/10 {
			t.Errorf("%s: %s, cache_n %d of %d", name, r.did, r.report.CacheN, len(r.report.Tokens))
		}
	}
	s.hangUp(tale("1812"))
	f("stopped", tale("1812"))
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
