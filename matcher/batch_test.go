package matcher

import (
	"math"
	"testing"
)

// TestBatchComputesWhatIsWantedAndLeavesTheEnd checks spans, costs and reasons.
func TestBatchComputesWhatIsWantedAndLeavesTheEnd(t *testing.T) {
	plan := func() *Plan {
		p := &Plan{Tokens: make([]PlanToken, 20)}
		p.Tokens[3].Reason, p.Tokens[4].Reason = Critical, Follows
		p.Tokens[9].Reason = Fuzzy
		for i := 17; i < 20; i++ {
			p.Tokens[i].Reason = Unmatched
		}
		return p
	}
	c := Costs{Token: 10, Agent: 2, Restore: 5}
	f := func(keepFuzzy bool, cost float64, fuzzy Reason) {
		t.Helper()
		p := plan()
		s := NewBatch(p, c, keepFuzzy)
		if len(s.Spans) != 1 || s.Spans[0] != (Span{17, 20}) {
			t.Errorf("spans are %v: expected the end, 17 to 20", s.Spans)
		}
		if math.Abs(s.Cost-cost) > 1e-9 || s.Cold != 200 {
			t.Errorf("cost %v of %v: expected %v of 200", s.Cost, s.Cold, cost)
		}
		if r := p.Tokens[9].Reason; r != fuzzy {
			t.Errorf("a near token is %v: expected %v", r, fuzzy)
		}
	}
	f(false, 2*3*10+5+30, Unmatched)
	f(true, 2*2*10+5+30, Fuzzy)
}
