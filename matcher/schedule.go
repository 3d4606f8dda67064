package matcher

import (
	"cmp"
	"math"
	"slices"
)

// Span is the target positions [From, To).
type Span struct{ From, To int }

func (s Span) len() int { return s.To - s.From }

// grow is s made up to n long within room, to the right first.
func (s Span) grow(n int, room Span) Span {
	s.To = max(s.To, min(s.From+n, room.To))
	s.From = min(s.From, max(s.To-n, room.From))
	return s
}

// Schedule is how a plan is carried out through a stock server: the spans that
// it computes, in order, each in a stage of its own; what lies between them is
// composed. The last span ends with the prompt and is computed by the forwarded
// request itself.
type Schedule struct {
	Spans []Span
	// Cost and Cold are the expected times in ms with and without sharing.
	Cost, Cold float64
}

// Limits bound a schedule.
type Limits struct {
	// Stages is the most stages of one fill.
	Stages int
	// Budget is the time in ms that recomputing in the middle may take; what
	// does not fit is taken over from the reference. Negative: no bound, all
	// that the plan wants is recomputed.
	Budget float64
}

// maxRuns bounds the quadratic grouping: of more the shortest gaps are computed along.
const maxRuns = 1500

// NewSchedule finds the cheapest way to compute what the plan wants, and
// writes into the plan what becomes of the tokens for it: gaps cheaper to
// compute than to stage are Bridged or, at the end, Cold. Without a budget every
// wanted token is recomputed, so what cannot be staged with profit ends in
// computing the prompt from that point on. Each gap between two wanted runs is
// either computed too or costs a stage; group chooses the cheapest for all gaps
// together. Where that takes more stages than the limit, the shortest gaps are
// computed as well. Spans are lengthened where that is cheaper, or else they would stand
// behind a hole.
func NewSchedule(p *Plan, c Costs, l Limits) Schedule {
	n := len(p.Tokens)
	s := Schedule{Cold: c.Prefill(0, n)}
	runs := wantedRuns(p)
	if l.Budget >= 0 {
		runs = p.afford(runs, c, l.Budget)
	}
	if over := len(runs) - maxRuns; over > 0 {
		runs = bridgeShortest(runs, over)
	}
	spans := group(runs, c, n)
	if over := len(spans) - 1 - l.Stages; l.Stages > 0 && over > 0 {
		spans = bridgeShortest(spans, over)
	}
	s.Spans = p.behindCells(c.lengthenAll(spans, n))
	for i, sp := range s.Spans {
		last := i == len(s.Spans)-1
		s.Cost += c.span(sp, last)
		p.recompute(sp, last)
	}
	return s
}

// behindCells makes the last span, which is lengthened to the left, begin right behind a
// cell: behind a hole a server does not go on. Where it then reaches the span before it
// the two become one.
func (p *Plan) behindCells(spans []Span) []Span {
	k := len(spans) - 1
	last := &spans[k]
	for last.From > 0 && p.Tokens[last.From-1].Reason == Hole {
		last.From--
	}
	if k > 0 && spans[k-1].To >= last.From {
		spans[k-1].To = last.To
		return spans[:k]
	}
	return spans
}

// recompute marks what the span adds to the wanted tokens.
func (p *Plan) recompute(s Span, last bool) {
	for i := s.From; i < s.To; i++ {
		t := &p.Tokens[i]
		switch {
		case t.Reason == Fuzzy || t.Reason == Hole:
			t.Reason = Unmatched
		case t.Reason != Reused:
		case last:
			t.Reason = Cold
		default:
			t.Reason = Bridged
		}
	}
}

// wantedRuns are the maximal runs of tokens to be recomputed. A synonym's KV is
// good enough only under a budget, which decides later.
func wantedRuns(p *Plan) []Span {
	var out []Span
	for i, t := range p.Tokens {
		if t.Reason == Reused {
			continue
		}
		if k := len(out); k > 0 && out[k-1].To == i {
			out[k-1].To = i + 1
		} else {
			out = append(out, Span{i, i + 1})
		}
	}
	return out
}

// group joins neighbouring runs into spans at the least cost: best[j] is that of
// the runs before j where all their spans are stages, the last of them being the
// runs from[j] to j. How far the span at the prompt's end can be lengthened hangs
// on the stage before it, so the two are chosen together. n is the length of the
// prompt.
func group(runs []Span, c Costs, n int) []Span {
	best := make([]float64, len(runs))
	from := make([]int, len(runs))
	least, end, before := math.Inf(1), 0, 0
	for j := range runs {
		if j == 0 {
			least = c.span(c.lengthen(Span{runs[0].From, n}, Span{0, n}), true)
			continue
		}
		best[j] = math.Inf(1)
		for i := range j {
			stage := c.lengthen(Span{runs[i].From, runs[j-1].To}, Span{runs[i].From, runs[j].From - 1})
			v := best[i] + c.span(stage, false)
			if v < best[j] {
				best[j], from[j] = v, i
			}
			v += c.span(c.lengthen(Span{runs[j].From, n}, Span{stage.To + 1, n}), true)
			if v < least {
				least, end, before = v, j, i
			}
		}
	}
	out := []Span{{runs[end].From, n}}
	for j, i := end, before; j > 0; j, i = i, from[i] {
		out = append(out, Span{runs[i].From, runs[j-1].To})
	}
	slices.Reverse(out)
	return out
}

// bridgeShortest joins the over shortest gaps.
func bridgeShortest(spans []Span, over int) []Span {
	gaps := make([]int, len(spans)-1)
	for i := range gaps {
		gaps[i] = i
	}
	length := func(i int) int { return spans[i+1].From - spans[i].To }
	slices.SortStableFunc(gaps, func(a, b int) int { return length(a) - length(b) })
	joined := map[int]bool{}
	for _, g := range gaps[:over] {
		joined[g] = true
	}
	out := spans[:1:1]
	for i, s := range spans[1:] {
		if joined[i] {
			out[len(out)-1].To = s.To
		} else {
			out = append(out, s)
		}
	}
	return out
}

// afford picks the runs whose recomputing fits the budget, those with critical
// tokens first, then the cheapest; the tokens of the others are taken from their
// counterparts, or left without a cell where they have none. The last run, which ends the
// prompt, is always kept.
func (p *Plan) afford(runs []Span, c Costs, budget float64) []Span {
	type choice struct {
		i        int
		critical bool
		cost     float64
	}
	last := len(runs) - 1
	var all []choice
	for i, r := range runs[:last] {
		all = append(all, choice{i, p.hasCritical(r), c.stage(r.From) + c.Prefill(r.From, r.To)})
	}
	slices.SortStableFunc(all, func(a, b choice) int {
		switch {
		case a.critical == b.critical:
			return cmp.Compare(a.cost, b.cost)
		case a.critical:
			return -1
		}
		return 1
	})
	keep := make([]bool, len(runs))
	keep[last] = true
	for _, ch := range all {
		if ch.cost <= budget {
			budget -= ch.cost
			keep[ch.i] = true
		}
	}
	var out []Span
	for i, r := range runs {
		if keep[i] {
			out = append(out, r)
		} else {
			p.accept(r)
		}
	}
	out[len(out)-1] = p.shortenTail(out[len(out)-1], c, budget)
	return out
}

func (p *Plan) hasCritical(s Span) bool {
	return slices.ContainsFunc(p.Tokens[s.From:s.To], func(t PlanToken) bool { return t.Reason == Critical })
}

// accept takes over the counterparts of the span's tokens.
func (p *Plan) accept(s Span) {
	for i := s.From; i < s.To; i++ {
		t := &p.Tokens[i]
		switch {
		case t.Ref < 0:
			t.Reason = Hole
		case t.Reason == Follows || t.Reason == Seam:
			t.Reason = Reused
		default:
			t.Reason = Fuzzy
		}
	}
}

// shortenTail gives up the start of a last run that is longer than the budget
// allows, up to its first critical token, keeping the end of the prompt, which asks the
// question.
func (p *Plan) shortenTail(s Span, c Costs, budget float64) Span {
	cut := s
	for cut.From < s.To-1 && c.Prefill(cut.From, cut.To) > budget {
		if t := p.Tokens[cut.From]; t.Ref < 0 || t.Reason == Critical {
			break
		}
		cut.From++
	}
	p.accept(Span{s.From, cut.From})
	return cut
}
