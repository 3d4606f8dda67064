package matcher

import (
	"math"
	"testing"
)

func never(*Plan) bool { return false }

// TestBatchComputesWhatIsWantedAndLeavesTheEnd checks spans, costs and reasons.
func TestBatchComputesWhatIsWantedAndLeavesTheEnd(t *testing.T) {
	var extra []int // further tokens that differ
	plan := func() *Plan {
		p := &Plan{Tokens: make([]PlanToken, 60)}
		for i := range p.Tokens {
			p.Tokens[i].Pos = int32(i)
		}
		p.Tokens[3].Reason, p.Tokens[4].Reason = Critical, Follows
		p.Tokens[9].Reason = Fuzzy
		for _, i := range extra {
			p.Tokens[i].Reason = Unmatched
		}
		for i := 57; i < 60; i++ {
			p.Tokens[i].Reason = Unmatched
		}
		return p
	}
	c := Costs{Token: 10, Agent: 2, Restore: 5}
	f := func(keepFuzzy bool, tail int, cost float64, fuzzy Reason) {
		t.Helper()
		p := plan()
		s := NewBatch(p, c, keepFuzzy, never)
		if len(s.Spans) != 1 || s.Spans[0] != (Span{57, 60}) {
			t.Errorf("spans are %v: expected the end, 57 to 60", s.Spans)
		}
		if math.Abs(s.Cost-cost) > 1e-9 || s.Cold != 600 {
			t.Errorf("cost %v of %v: expected %v of 600", s.Cost, s.Cold, cost)
		}
		for i, token := range p.Tokens[:57] {
			if before := i < 57-tail; before == (token.Reason == Tail) {
				t.Errorf("token %d is %v", i, token.Reason)
			}
		}
		if r := p.Tokens[9].Reason; r != fuzzy {
			t.Errorf("a near token is %v: expected %v", r, fuzzy)
		}
	}
	f(false, 6, 2*(3+6)*10+5+30, Unmatched)
	f(true, 5, 2*(2+5)*10+5+30, Fuzzy)
	for i := 10; i < 20; i++ {
		extra = append(extra, i)
	}
	f(true, 15, 2*(12+15)*10+5+30, Fuzzy)
}

// TestBatchTakesTheEndInWhereItIsShort: a short batch of its own may cost more than the
// same tokens computed with the others, and a draft would compute them once more, but the
// last token is always the request's.
func TestBatchTakesTheEndInWhereItIsShort(t *testing.T) {
	f := func(short float64, drafted bool, want Span, cost float64) {
		t.Helper()
		p := fromRef([2]int{0, 57})
		for range 3 {
			p.Tokens = append(p.Tokens, PlanToken{Ref: -1, Reason: Unmatched})
		}
		c := Costs{Token: 10, Agent: 1, Restore: 5}
		c.Short[0], c.Short[1] = short, short
		s := NewBatch(p, c, false, func(*Plan) bool { return drafted })
		if len(s.Spans) != 1 || s.Spans[0] != want || math.Abs(s.Cost-cost) > 1e-9 {
			t.Errorf("short batches cost %v times as much, drafted %v: span %v at %v: expected %v at %v", short, drafted, s.Spans, s.Cost, want, cost)
		}
	}
	f(1, false, Span{57, 60}, 5+30)
	f(4, false, Span{59, 60}, 20+5+40)
	f(1, true, Span{59, 60}, 20+5+10)
}

// TestBatchCountsTheFixedCost: it is paid where anything is computed inside, once, and
// speaks for leaving the end to the forwarded request where nothing else is.
func TestBatchCountsTheFixedCost(t *testing.T) {
	f := func(changed, new int, fixed float64, want Span, cost float64) {
		t.Helper()
		p := fromRef([2]int{0, 57})
		for i := range changed {
			p.Tokens[56-2*i].Reason = Unmatched
		}
		for range new {
			p.Tokens = append(p.Tokens, PlanToken{Ref: -1, Reason: Unmatched})
		}
		c := Costs{Token: 10, Agent: 1, AgentFixed: fixed, Restore: 5}
		c.Short[0], c.Short[1] = 4, 4
		s := NewBatch(p, c, false, never)
		if len(s.Spans) != 1 || s.Spans[0] != want || math.Abs(s.Cost-cost) > 1e-9 {
			t.Errorf("%d tokens changed, %d new, fixed cost %v: span %v at %v: expected %v at %v", changed, new, fixed, s.Spans, s.Cost, want, cost)
		}
	}
	f(0, 3, 0, Span{59, 60}, 20+5+40)
	f(0, 3, 50, Span{59, 60}, 50+20+5+40)
	f(0, 3, 70, Span{57, 60}, 5+120)
	f(0, 1, 70, Span{57, 58}, 5+40)
}
