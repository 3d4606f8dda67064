package proxy

import (
	"errors"
	"testing"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
)

// TestOnlyWhatIsKnownAndNovelIsKept, as its tenant's and of its generation.
func TestOnlyWhatIsKnownAndNovelIsKept(t *testing.T) {
	const n = 300
	f := func(name string, change func(*standIn, *decision, *outcome), want error) {
		t.Helper()
		s := startStandIn(t, 2)
		s.saves = numbered(n)
		d := s.holding("us", numbered(n))
		d.generation = 1
		o := outcome{CacheN: 0, PromptN: n}
		change(s, d, &o)
		before := len(s.lv.store.All())
		p, err := d.saveWorthy(o)
		if err == nil {
			err = d.commit(p)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", name, err, want)
		}
		all := s.lv.store.All()
		if kept := len(all) > before; kept != (want == nil) || kept && (all[0].Tenant != "us" || all[0].Generation != d.generation) {
			t.Errorf("%s: kept %+v", name, all)
		}
	}
	f("a cold prompt", func(*standIn, *decision, *outcome) {}, nil)
	f("a route that keeps none", func(_ *standIn, d *decision, _ *outcome) { d.req.Policy.Reuse = configs.ReuseExact }, errNotFuzzy)
	f("by adapters of its own", func(_ *standIn, d *decision, _ *outcome) { d.req.Adapters = "[1]" }, errNotFuzzy)
	f("short", func(s *standIn, d *decision, o *outcome) {
		d.tokens = d.tokens[:s.sh.cfg.Store.MinTokens-1]
		o.PromptN = len(d.tokens)
	}, errTooShort)
	f("of unknown origin", func(_ *standIn, d *decision, _ *outcome) { d.generation = unknown }, errUnknown)
	f("without some cells", func(_ *standIn, d *decision, _ *outcome) { d.generation = thinned }, errComposed)
	f("composed too often", func(s *standIn, d *decision, _ *outcome) { d.generation = s.sh.cfg.Store.MaxGeneration + 1 }, errComposed)
	f("composed as often as may be", func(s *standIn, d *decision, _ *outcome) { d.generation = s.sh.cfg.Store.MaxGeneration }, nil)
	f("like its reference", func(s *standIn, d *decision, _ *outcome) {
		d.State, d.report.Similarity = StateShared, s.sh.cfg.Store.Novelty
	}, errKnown)
	f("nothing counted", func(_ *standIn, _ *decision, o *outcome) { o.CacheN, o.PromptN = -1, -1 }, errForeign)
	f("not all counted", func(_ *standIn, _ *decision, o *outcome) { o.CacheN, o.PromptN = -1, n+1 }, errForeign)
	f("in a slot doubted while it was saved", func(s *standIn, _ *decision, _ *outcome) { s.beside = s.lv.slots.doubt }, errForeign)
	f("what a reference still holds", func(s *standIn, d *decision, o *outcome) {
		d.State, o.CacheN, o.PromptN = StateExact, n-1, 1
		if err := s.sh.index.Add(t.Context(), s.sh.scope("us", s.lv.refKey), s.keep("us", 0, d.tokens), s.lv.signer.Fingerprint(d.tokens), time.Now()); err != nil {
			t.Fatal(err)
		}
	}, errKnown)
	f("what no reference holds any more", func(_ *standIn, d *decision, o *outcome) { d.State, o.CacheN, o.PromptN = StateExact, n-1, 1 }, nil)
	f("another number of tokens", func(_ *standIn, _ *decision, o *outcome) { o.PromptN++ }, errForeign)
	f("in a doubted slot", func(s *standIn, _ *decision, _ *outcome) { s.lv.slots.doubt() }, errForeign)
	f("while adapters are set", func(_ *standIn, d *decision, _ *outcome) { d.sh.unpinned.adapted.Add(1) }, errForeign)
	f("of a backend before", func(s *standIn, _ *decision, _ *outcome) { s.sh.live.Store(nil) }, errForeign)
	f("of other tokens", func(s *standIn, _ *decision, _ *outcome) { s.saves[n-1]++ }, errForeign)
	f("fewer tokens", func(s *standIn, _ *decision, _ *outcome) { s.saves = s.saves[:n-1] }, errForeign)
	f("slots in demand", func(s *standIn, _ *decision, _ *outcome) { s.lv.slots.acquire(t.Context(), "us", nil, 1, 0) }, errInDemand)
	f("slots in demand, asked before", func(s *standIn, d *decision, _ *outcome) {
		s.lv.slots.acquire(t.Context(), "us", nil, 1, 0)
		d.seen = 1
	}, nil)
	failed := new(bridge.BackendError)
	s := startStandIn(t, 1)
	s.fails = "save"
	if _, err := s.holding("us", numbered(n)).saveWorthy(outcome{PromptN: n}); !errors.As(err, &failed) || len(s.lv.store.All()) > 0 {
		t.Errorf("a save that failed: error %v, kept %v", err, s.lv.store.All())
	}
}
