package matcher

// NewBatch is the schedule for a backend that computes any tokens in one go,
// wherever they stand (the agent): all that the plan wants is computed, and what
// stands at the end of the prompt is left to the forwarded request. The only span
// is that end. With keepFuzzy, tokens with a near counterpart take its KV;
// otherwise they become Unmatched.
func NewBatch(p *Plan, c Costs, keepFuzzy bool) Schedule {
	n := len(p.Tokens)
	wanted := 0.0
	end := n
	for i := n - 1; i >= 0; i-- {
		t := &p.Tokens[i]
		if t.Reason == Fuzzy && !keepFuzzy {
			t.Reason = Unmatched
		}
		switch {
		case !t.Reason.Recomputed():
		case i == end-1:
			end = i
		default:
			wanted += c.Long(i, i+1)
		}
	}
	return Schedule{Spans: []Span{{end, n}}, Cost: c.Agent*wanted + c.restore(end) + c.Prefill(end, n), Cold: c.Prefill(0, n)}
}
