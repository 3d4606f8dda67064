package proxy

import (
	"slices"
	"testing"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// TestARecipeKeepsWhatIsCritical, where only some of the cells are kept, and computes in all
// layers what the plan recomputes.
func TestARecipeKeepsWhatIsCritical(t *testing.T) {
	d := &decision{lv: &live{probed: &bridge.Probed{Layout: bridge.Layout{Layers: make([]bridge.LayerLayout, 3)}}}, req: &request{}, tokens: numbered(9)}
	d.req.Policy.Retention = .5
	p := prefixPlan("id", d.tokens, 7, -4)
	for i, r := range []matcher.Reason{matcher.Reused, matcher.Fuzzy, matcher.Critical, matcher.Follows, matcher.Sample, matcher.Hole, matcher.Reused} {
		p.Tokens[i].Reason = r
	}
	p.Passages = []matcher.Span{{From: 4, To: 5}}
	p.Displaced = []matcher.Span{{From: 3, To: 5}, {From: 6, To: 9}}
	r := d.recipe(p, nil)
	f := func(what string, ok bool, got any) {
		t.Helper()
		if !ok {
			t.Errorf("%s: %v", what, got)
		}
	}
	f("tokens", slices.Equal(r.Tokens, d.tokens[:7]), r.Tokens)
	f("tokens that follow", slices.Equal(r.Following, d.tokens[7:]), r.Following)
	f("retention", r.Retention == .5, r.Retention)
	f("kept", slices.Equal(r.Keep, []bool{2: true, 6: false}), r.Keep)
	f("layers computed", slices.Equal(r.Depth, []uint16{2: 3, 3: 3, 4: 3, 6: 0}), r.Depth)
	f("passages", slices.Equal(r.Passage, []uint16{4: 1, 6: 0}), r.Passage)
	f("samples", slices.Equal(r.Sample, []bool{4: true, 6: false}), r.Sample)
	f("displaced", slices.Equal(r.Displaced, []bool{3: true, 4: true, 6: true}), r.Displaced)
	f("runs", slices.Equal(r.Runs, []bridge.Run{{Src: 4, Len: 5, Delta: -4}, {Src: 10, Dst: 6, Len: 1, Delta: -4}}), r.Runs)
}

// TestASlotThatLacksCellsIsOfNoKeptGeneration: nothing that it holds becomes a reference.
func TestASlotThatLacksCellsIsOfNoKeptGeneration(t *testing.T) {
	f := func(cells int, retention float64, want int) {
		t.Helper()
		s := startStandIn(t, 1)
		s.restores, s.cells = 6, cells
		d := s.decision("us", numbered(8))
		d.req.Policy.Retention = retention
		p := prefixPlan(s.keep("us", 0, numbered(8)), d.tokens, 6, 0)
		p.recipe = true
		if d.inject(t.Context(), p, ""); d.State != StateShared || d.generation != want {
			t.Errorf("%d of 6 cells, retention %v: %s, reason %q, generation %d; want %d", cells, retention, d.State, d.Reason, d.generation, want)
		}
	}
	f(6, .5, 0)
	f(4, .5, thinned)
	f(5, 1, 0) // holes of the plan
}
