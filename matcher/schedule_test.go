package matcher

import (
	"math"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// planOf makes a plan from letters: r reused, u unmatched without a counterpart,
// f fuzzy, c critical, F follows, t tail.
func planOf(s string) *Plan {
	by := map[rune]Reason{'r': Reused, 'u': Unmatched, 'f': Fuzzy, 'c': Critical, 'F': Follows, 't': Tail}
	p := &Plan{Refs: []string{"a"}}
	for i, c := range s {
		tok := PlanToken{Reason: by[c], Pos: int32(i)}
		if c == 'u' {
			tok.Ref = -1
		}
		p.Tokens = append(p.Tokens, tok)
	}
	return p
}

// checkSchedule: spans ascend, do not touch, and outside of them nothing is left
// to be recomputed.
func checkSchedule(t interface{ Fatalf(string, ...any) }, p *Plan, s Schedule) {
	at := -1
	for _, sp := range s.Spans {
		if sp.From <= at || sp.To <= sp.From {
			t.Fatalf("span %v after position %d", sp, at)
		}
		at = sp.To
	}
	i := 0
	for pos, tok := range p.Tokens {
		for i < len(s.Spans) && pos >= s.Spans[i].To {
			i++
		}
		in := i < len(s.Spans) && pos >= s.Spans[i].From
		if in != tok.Reason.Recomputed() {
			t.Fatalf("token %d, %s, in a span: %v", pos, tok.Reason, in)
		}
	}
}

func TestScheduleBridgesGapsThatAreCheaperToComputeThanToStage(t *testing.T) {
	f := func(plan string, want ...Span) {
		t.Helper()
		p := planOf(plan)
		s := NewSchedule(p, Costs{Token: 1, Stage: 4, Restore: 2}, Limits{Budget: -1})
		checkSchedule(t, p, s)
		if len(s.Spans) != len(want) {
			t.Fatalf("%s: spans %v, want %v", plan, s.Spans, want)
		}
		for i := range want {
			if s.Spans[i] != want[i] {
				t.Errorf("%s: spans %v, want %v", plan, s.Spans, want)
			}
		}
	}
	f("rrrrrrt", Span{6, 7})
	f("rrurrrrrrt", Span{2, 3}, Span{9, 10})
	f("rrurrrt", Span{2, 7})
	f("rrurrurrrrrrt", Span{2, 6}, Span{12, 13})
	f("rrrrrrrrfrrrrrt", Span{8, 9}, Span{14, 15})
}

func TestScheduleWithinABudgetRepairsCriticalTokensFirst(t *testing.T) {
	p := planOf("rrrrrrrrfrrrrrrrrrrcFrrrrrrrrrrurrrrrrrrt")
	s := NewSchedule(p, Costs{Token: 1, Stage: 4, Restore: 2}, Limits{Budget: 7})
	checkSchedule(t, p, s)
	if len(s.Spans) != 2 || s.Spans[0] != (Span{19, 21}) {
		t.Errorf("spans %v, want the critical one and the tail", s.Spans)
	}
	if p.Tokens[8].Reason != Fuzzy || p.Tokens[31].Reason != Hole {
		t.Errorf("what the budget left became %s and %s, want fuzzy and hole", p.Tokens[8].Reason, p.Tokens[31].Reason)
	}
}

// TestScheduleWithinABudgetShortensTheEnd, but takes over nothing critical.
func TestScheduleWithinABudgetShortensTheEnd(t *testing.T) {
	f := func(plan string, want Span) {
		t.Helper()
		p := planOf(plan)
		s := NewSchedule(p, Costs{Token: 1, Stage: 4, Restore: 2}, Limits{Budget: 7})
		checkSchedule(t, p, s)
		if len(s.Spans) != 1 || s.Spans[0] != want {
			t.Errorf("%s: spans %v, want %v", plan, s.Spans, want)
		}
	}
	f("rrrrrrrrrrffffffffffffffffffft", Span{23, 30})
	f("rrrrrrrrrrfffcfffffffffffffffft", Span{13, 31})
}

func TestScheduleKeepsToItsStages(t *testing.T) {
	p := planOf("rrrrrrurrrrrrrrrurrrrrrrrrrrrurrrrrrrrrrrrrrt")
	s := NewSchedule(p, Costs{Token: 1, Stage: 1, Restore: 1}, Limits{Budget: -1, Stages: 1})
	checkSchedule(t, p, s)
	if len(s.Spans) != 2 {
		t.Errorf("spans %v, want one stage and the tail", s.Spans)
	}
}

// The schedule is the cheapest of all ways to bridge gaps.
func TestScheduleIsTheCheapest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SliceOfN(rapid.SampledFrom([]rune("rrrrrruc")), 1, 24).Draw(t, "plan")
		p := planOf(string(letters) + "t")
		short := rapid.SliceOfN(rapid.Float64Range(0.5, 3), ShortBatches, ShortBatches).Draw(t, "short")
		c := Costs{Token: rapid.Float64Range(0.5, 3).Draw(t, "token"), TokenPos: rapid.Float64Range(0, 0.1).Draw(t, "growth"),
			Stage: rapid.Float64Range(0, 9).Draw(t, "stage"), StagePos: rapid.Float64Range(0, 0.3).Draw(t, "stagepos"), Restore: 1, Short: [ShortBatches]float64(short)}
		least := cheapest(wantedRuns(p), c, len(p.Tokens))
		s := NewSchedule(p, c, Limits{Budget: -1})
		checkSchedule(t, p, s)
		if s.Cost > least+1e-9 {
			t.Fatalf("cost %v, possible %v", s.Cost, least)
		}
	})
}

// Whatever a budget leaves out, each span stands right behind a cell: behind a hole the
// server could not go on.
func TestScheduleWithinABudgetGoesOnBehindCells(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		letters := rapid.SliceOfN(rapid.SampledFrom([]rune("rrrrrrrucfF")), 1, 40).Draw(t, "plan")
		p := planOf(string(letters) + "tt")
		short := rapid.SliceOfN(rapid.Float64Range(0.5, 9), ShortBatches, ShortBatches).Draw(t, "short")
		c := Costs{Token: 1, Stage: rapid.Float64Range(0, 9).Draw(t, "stage"), Restore: 1, Short: [ShortBatches]float64(short)}
		s := NewSchedule(p, c, Limits{Budget: rapid.Float64Range(0, 40).Draw(t, "budget")})
		checkSchedule(t, p, s)
		for _, sp := range s.Spans {
			if sp.From > 0 && p.Tokens[sp.From-1].Reason == Hole {
				t.Fatalf("span %v stands right behind a hole", sp)
			}
		}
	})
}

// cheapest tries every choice of gaps to bridge.
func cheapest(runs []Span, c Costs, n int) float64 {
	best := math.Inf(1)
	for mask := range 1 << (len(runs) - 1) {
		spans := []Span{runs[0]}
		for i, r := range runs[1:] {
			if mask&(1<<i) != 0 {
				spans[len(spans)-1].To = r.To
			} else {
				spans = append(spans, r)
			}
		}
		cost := 0.0
		for i, s := range c.lengthenAll(spans, n) {
			cost += c.span(s, i == len(spans)-1)
		}
		best = min(best, cost)
	}
	return best
}

// A batch that the backend's fast kernels take is cheaper than a shorter one.
func TestScheduleLengthensSpansToTheFastBatch(t *testing.T) {
	c := Costs{Token: 1, Stage: 1, Restore: 1, Short: [ShortBatches]float64{5, 4, 3, .9}}
	f := func(plan string, want ...Span) {
		t.Helper()
		p := planOf(plan)
		s := NewSchedule(p, c, Limits{Budget: -1})
		checkSchedule(t, p, s)
		if !slices.Equal(s.Spans, want) {
			t.Errorf("%s: spans %v, want %v", plan, s.Spans, want)
		}
	}
	f("rrrruuuuurrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrt", Span{4, 12}, Span{40, 41})
	f("rrrruuuuurrrrrrrrrrrrrrrrrrrrrrrrrrrrrrtt", Span{4, 12}, Span{33, 41})
	f("rrrrurrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrrtt", Span{4, 5}, Span{33, 41})
	f("uuurt", Span{0, 5})
}

// A hole that the last span would be lengthened to is computed with it, as is the stage
// before it where nothing but holes would lie between.
func TestScheduleComputesTheHolesItWouldStandBehind(t *testing.T) {
	f := func(plan string, budget float64, want ...Span) {
		t.Helper()
		p := planOf(plan)
		s := NewSchedule(p, Costs{Token: 1, Stage: 1, Restore: 1, Short: [ShortBatches]float64{5, 4, 3, .9}}, Limits{Budget: budget})
		checkSchedule(t, p, s)
		if !slices.Equal(s.Spans, want) {
			t.Errorf("%s: spans %v, want %v", plan, s.Spans, want)
		}
	}
	f("rrrrrrrruurrrrrrtt", 8, Span{8, 18})
	f("rrrrrrrrrrruurrrtt", 8, Span{10, 18})
	f("rrrrccrrrrrruuuuuuuurrrrrrtt", 17, Span{4, 28})
}
