package proxy

import (
	"context"
	"errors"
	"time"

	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

const (
	// exactEnough is the part from which on nothing else is looked for.
	exactEnough = 0.95
	// candidates asked of the index, or twice the references that a prompt may draw on.
	candidates = 8
	// maxStages of one fill; each makes the backend stand still twice.
	maxStages = 192
	// gain is what sharing must be expected to take at most, as a share of the
	// best without it.
	gain = 0.9
)

// planned is a plan that pays, with its references still to be opened.
type planned struct {
	*matcher.Plan
	matcher.Schedule
	recipe bool    // the agent carries it out
	inside float64 // what the agent computes, in ms at the price of a prefill
}

// match finds out the tokens, looks for similar prompts and plans how they serve.
// A nil result comes with the reason.
func (d *decision) match(ctx context.Context) (*planned, string) {
	start := time.Now()
	defer func() { d.report.Match = time.Since(start) }()
	if d.hopeless() {
		return nil, coldNoGain
	}
	ctx, cancel := context.WithTimeout(ctx, d.budget())
	defer cancel()
	tokens, exact, err := d.lv.tokens(ctx, d.req.Authorization, &d.req.Prompt)
	d.sh.step("tokens", start)
	if keyRefused(err) {
		return nil, coldRefused
	}
	if err != nil || len(tokens) == 0 {
		d.sh.log.Debug().Err(err).Str("id", d.req.ID).Msg("no tokens")
		return nil, late(ctx, coldTokens)
	}
	if d.lv.tooLong(len(tokens)) {
		return nil, coldLong
	}
	d.tokens, d.exact, d.report.Tokens = tokens, exact, tokens
	pol := &d.req.Policy
	switch {
	case d.req.Adapters != "":
		return nil, offLoRA
	case pol.Reuse == configs.ReuseExact:
		return nil, coldExactOnly
	case len(tokens) < pol.MinTokens:
		return nil, coldShort
	case d.book.longestPrefix(d.req.Tenant, tokens, d.maxGeneration()) >= int(exactEnough*float64(len(tokens))):
		return nil, coldNoGain
	}
	defer func() { d.lv.costs.matched(len(tokens), milliseconds(time.Since(start))) }()
	refs, reason := d.lookUp(ctx)
	if len(refs) == 0 {
		return nil, reason
	}
	return d.plan(ctx, refs)
}

// tooLong: the backend refuses a prompt that leaves no room for an answer in its slot, with
// context shift too.
func (lv *live) tooLong(n int) bool {
	most := lv.probed.Props.Context
	return most > 0 && n >= most
}

// late names the time budget where it was what ran out, and the client where it left.
func late(ctx context.Context, otherwise string) string {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded):
		return coldLate
	case err != nil:
		return coldClientGone
	}
	return otherwise
}

// lookUp asks the index and verifies what it names.
func (d *decision) lookUp(ctx context.Context) ([]matcher.Reference, string) {
	defer d.sh.step("lookup", time.Now())
	pol := &d.req.Policy
	found, err := d.sh.index.Find(ctx, d.sh.scope(d.req.Tenant, d.lv.refKey), d.lv.signer.Fingerprint(d.tokens), max(candidates, 2*pol.References))
	if err != nil {
		d.sh.metrics.IndexErrors.Inc()
		d.sh.log.Debug().Err(err).Str("id", d.req.ID).Msg("index")
		return nil, late(ctx, coldIndex)
	}
	d.seen = found.Seen
	var refs []matcher.Reference
	for _, c := range found.Candidates {
		if ctx.Err() != nil {
			break
		}
		// The index may say anything: another tenant's prompt is not even looked at.
		if p, err := d.lv.store.Prompt(c.ID); err == nil && p.Tenant == d.req.Tenant {
			refs = append(refs, matcher.Reference{ID: c.ID, Tokens: p.Tokens})
		}
	}
	refs = matcher.Verify(ctx, d.tokens, refs, pol.References, pol.Seam)
	return refs, late(ctx, coldNothing)
}

// plan aligns and schedules, and weighs the outcome against doing without.
func (d *decision) plan(ctx context.Context, refs []matcher.Reference) (*planned, string) {
	defer d.sh.step("align", time.Now())
	pol := &d.req.Policy
	alignment := matcher.Align(ctx, d.tokens, refs, d.lv.signer, pol.Seam)
	if alignment == nil {
		return nil, coldLate
	}
	for _, r := range refs {
		d.report.Refs = append(d.report.Refs, r.ID)
	}
	d.report.Similarity = alignment.Similarity(matcher.DefaultTokenSimilarity)
	if d.report.Similarity < pol.MinSimilarity {
		return nil, coldDissimilar
	}
	p := d.drawPlan(ctx, alignment)
	if p == nil {
		return nil, late(ctx, coldLate)
	}
	d.report.Plan = p.Tokens
	costs := d.lv.costs.model()
	if d.agent() {
		return d.batch(ctx, p, costs)
	}
	limits := matcher.Limits{Stages: maxStages, Budget: -1}
	if pol.Unrepaired == configs.UnrepairedAccept {
		limits.Budget = pol.RepairShare * costs.Prefill(0, len(d.tokens))
	}
	s := matcher.NewSchedule(p, costs, limits)
	return d.worth(ctx, &planned{Plan: p, Schedule: s}, costs)
}

// drawPlan plans by the policy, and where the prompt is of a kind that may do with less,
// once more by that. It is nil where ctx ended first.
func (d *decision) drawPlan(ctx context.Context, a *matcher.Alignment) *matcher.Plan {
	p := matcher.Decide(ctx, a, d.lv.rules(&d.req.Policy, d.agent()))
	if p == nil {
		return nil
	}
	d.report.Displaced = p.DisplacedShare()
	d.level = d.chooseLevel()
	if d.applyLeftOut() {
		p = matcher.Decide(ctx, a, d.lv.rules(&d.req.Policy, d.agent()))
	}
	return p
}

// worth weighs a schedule against what an exact prefix saves anyway. A slot's exact prefix is
// kept where the plan would leave at least as many tokens to compute, even if the agent would
// compute them sooner.
func (d *decision) worth(ctx context.Context, p *planned, costs matcher.Costs) (*planned, string) {
	prefix := d.book.longestPrefix(d.req.Tenant, d.tokens, d.maxGeneration())
	d.sh.log.Debug().Str("id", d.req.ID).Float64("similarity", d.report.Similarity).Float64("cost_ms", p.Cost).Float64("cold_ms", p.Cold).
		Interface("costs", costs).Interface("spans", p.Spans).Msg("planned")
	if d.trial == nil && (p.Cost > gain*costs.Prefill(prefix, len(d.tokens)) || prefix > 0 && p.Recomputed() >= len(d.tokens)-prefix) {
		return nil, coldNoGain
	}
	if ctx.Err() != nil {
		return nil, late(ctx, coldLate)
	}
	return p, ""
}

// slotFirstSeam is how many seams' length a passage's start takes, by the slot way, where
// it opened its reference and does not open the prompt. The agent shifts such a passage
// as a whole instead.
const slotFirstSeam = 4

// rules are the route's, as the matcher takes them.
func (lv *live) rules(p *configs.Policy, agent bool) matcher.Rules {
	r := matcher.Rules{TokenSimilarity: matcher.DefaultTokenSimilarity, Followers: p.Followers, CriticalFollowers: p.CriticalFollowers,
		Seam: p.Seam, FirstSeam: slotFirstSeam * p.Seam, Fixed: lv.probed.RoPE == nil}
	if agent {
		r.Followers, r.FirstSeam = p.AgentFollowers, p.Seam
	}
	if p.Unrepaired == configs.UnrepairedCold {
		r.WordShare = matcher.DefaultWordShare
	}
	r.Critical, _ = matcher.ParseClasses(p.Critical) // validated with the configuration
	if lv.model != nil {
		r.Pieces = lv.model.Piece
	}
	return r
}
