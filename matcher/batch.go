package matcher

// BatchTail is how many tokens before the end that is left to the forwarded request
// are computed whatever the plan says, if it wants as many others: a changed number
// does not cost 32 tokens more. The answer attends through them, and what they hold
// of the reference's prompt misleads it: of two releases of a document the KL was .22
// nats with them taken over and .01 with them computed.
const BatchTail = 32

// NewBatch is the schedule for a backend that computes any tokens in one go,
// wherever they stand (the agent). All that the plan wants is computed inside the
// server, except the end of the prompt. That end is the only span and is left to the
// forwarded request; it shrinks to the last token where that is cheaper or an answer is
// drafted (leftToForward). Up to BatchTail tokens before that end are computed too, and
// samples of passages whose context changed. With keepFuzzy, tokens with a near counterpart take its KV;
// otherwise they become Unmatched. drafts says whether an answer will be drafted behind
// the plan, for which all but the last token are computed anyway.
func NewBatch(p *Plan, c Costs, keepFuzzy bool, drafts func(*Plan) bool) Schedule {
	p.sample()
	n := len(p.Tokens)
	wanted, changed := 0.0, 0
	end := n
	for i := n - 1; i >= 0; i-- {
		t := &p.Tokens[i]
		if t.Reason == Fuzzy && !keepFuzzy {
			t.Reason = Unmatched
		}
		if !t.Reason.Recomputed() {
			continue
		}
		changed++
		if i == end-1 {
			end = i
		} else {
			wanted += c.Long(i, i+1)
		}
	}
	for i := max(end-min(BatchTail, changed), p.firstChange()); i < end; i++ {
		if t := &p.Tokens[i]; !t.Reason.Recomputed() {
			t.Reason = Tail
			wanted += c.Long(i, i+1)
		}
	}
	end, inside := leftToForward(end, n, c, wanted > 0, drafts(p))
	return Schedule{Spans: []Span{{end, n}}, Cost: c.Inside(wanted+inside) + c.restore(end) + c.Prefill(end, n), Cold: c.Prefill(0, n)}
}

// leftToForward is where the forwarded request goes on. What the plan wants from end on
// is computed with the rest where that is cheaper than in a short batch of its own, at
// the price of a prefill returned; the last token is the forwarded request's always.
// begun says that something is computed inside anyway, so that the fixed cost of that
// is no matter.
func leftToForward(end, n int, c Costs, begun, drafted bool) (from int, inside float64) {
	if n-1 <= end {
		return end, 0
	}
	inside = c.Long(end, n-1)
	if begun {
		c.AgentFixed = 0
	}
	if drafted || c.Inside(inside)+c.Prefill(n-1, n) < c.Prefill(end, n) {
		return n - 1, inside
	}
	return end, 0
}

// firstChange is the first token that is not where, or what, it was in its reference.
func (p *Plan) firstChange() int {
	for i, t := range p.Tokens {
		if t.Reason != Reused || int(t.Pos) != i {
			return i
		}
	}
	return len(p.Tokens)
}
