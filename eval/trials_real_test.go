package eval

import (
	"io"
	"math"
	"path/filepath"
	"testing"

	"github.com/semsharekv/semsharekv/internal/lab"
	"github.com/semsharekv/semsharekv/proxy"
)

// TestTrialsShareFromTheReference: a target of which so much is new that a serve would keep
// it is shared by each trial from the reference, as by the first run, and not from itself.
func TestTrialsShareFromTheReference(t *testing.T) {
	agent, err := filepath.Abs("../bin/libsemshare-agent.so")
	if err != nil {
		t.Fatal(err)
	}
	b := lab.StartBackend(t, lab.BackendOptions{Context: 4096, Threads: 1, Preload: agent})
	cfg := measured(b.URL, b.SlotDir)
	cfg.Backend.Way, cfg.Defaults.Quality.KL = AgentWay, 0
	o := Options{Config: cfg, AnswerTokens: 4, Progress: io.Discard}
	m, end, err := start(t.Context(), &o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := end(); err != nil {
			t.Error(err)
		}
	}()
	m.ablations = []variant{{"as configured", proxy.Trial{}}, {"no recompute", proxy.Trial{Plan: recomputeNothing}}}
	p := halfNewPair(t)
	_, first, err := m.sharedTime(t.Context(), p, func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	r := m.measure(t.Context(), p, func(int) {})
	if r.Error != "" || r.Decision != "shared" || r.Similarity < .5 || r.Similarity > .9 {
		t.Fatalf("%s %s, of similarity %.2f: %s; expected to be shared, half of it new", r.Decision, r.Reason, r.Similarity, r.Error)
	}
	references(t, b.SlotDir, 1)
	usual, bare := r.Ablations[0], r.Ablations[1]
	if usual.Error != "" || bare.Error != "" {
		t.Fatalf("%q, %q", usual.Error, bare.Error)
	}
	if math.Abs(usual.Work-first.Work) > .02 || usual.KLMean != r.KLMean {
		t.Errorf("by a trial of nothing else %.3f of the target were computed, at %v nats, and %.3f, at %v, by the first run; expected the same", usual.Work, usual.KLMean, first.Work, r.KLMean)
	}
	if bare.Work > usual.Work/2 || bare.KLMean == usual.KLMean {
		t.Errorf("with nothing computed %.3f were, at %v nats, and %.3f, at %v, as usual; expected much less, and other nats", bare.Work, bare.KLMean, usual.Work, usual.KLMean)
	}
}

// halfNewPair is a document, and half of it with half of another behind.
func halfNewPair(t *testing.T) Pair {
	t.Helper()
	pairs, err := ReadPairs(writeShortPairs(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	text, other := pairs[0].Reference, pairs[1].Target
	return Pair{ID: "half-new", Group: "edited", Reference: text, Target: text[:len(text)*2/3] + other[:len(other)/3]}
}
