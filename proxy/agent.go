package proxy

import (
	"context"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// Sharing by way of the agent: the plan becomes a recipe, and all that it wants
// recomputed is computed inside the server in one go.

// batch schedules a plan for the agent and weighs it.
func (d *decision) batch(ctx context.Context, p *matcher.Plan, costs matcher.Costs) (*planned, string) {
	pol := &d.req.Policy
	s := matcher.NewBatch(p, costs, pol.Unrepaired == configs.UnrepairedAccept, d.drafts)
	d.tryPlan(p, s.Spans[0].From)
	out := &planned{Plan: p, Schedule: s, recipe: true}
	for i, t := range p.Tokens[:s.Spans[0].From] {
		if t.Reason.Recomputed() {
			out.inside += costs.Long(i, i+1)
		}
	}
	named := out.inside
	out.inside += d.extra(p, s.Spans[0].From, costs)
	out.Cost += costs.Inside(out.inside) - costs.Inside(named)
	return d.worth(ctx, out, costs)
}

// cook has the agent carry the plan out; a reason means that it failed.
func (d *decision) cook(ctx context.Context, p *planned, refs []*bridge.Reference) string {
	start := time.Now()
	r := d.trialRecipe(d.recipe(p, refs))
	var done bridge.Filled
	var reply bridge.AgentReply
	err := d.withRoom(ctx, func() (err error) {
		done, reply, err = d.lv.filler.Cook(ctx, d.slot.id, r)
		return err
	})
	d.report.Compose, d.report.Inject = done.Compose, done.Inject
	if err != nil {
		if ctx.Err() == nil {
			d.lv.agentFailed(d.sh, err)
		}
		return d.fillFailed(ctx, err)
	}
	d.lv.failures.Store(0)
	if err := d.confirm(ctx); err != nil {
		return d.fillFailed(ctx, err)
	}
	d.sh.step("compose", start)
	d.sh.log.Debug().Str("id", d.req.ID).Float64("compose_ms", reply.Compose).Float64("recompute_ms", reply.Recompute).Float64("restore_ms", reply.Restore).
		Str("cache", reply.Cache).Str("aside", reply.Aside).Int("brought", reply.Brought).Msg("cooked")
	d.lv.costs.cooked(p.inside, done, reply)
	d.report.Work = d.work(done, reply)
	d.shared(p, done)
	if done.Cells < done.Tokens && d.req.Policy.Retention < 1 {
		d.generation = thinned
	}
	return ""
}

// recipe is the plan up to the end that is left to the forwarded request.
func (d *decision) recipe(p *planned, refs []*bridge.Reference) *bridge.Recipe {
	end := p.Spans[0].From
	r := &bridge.Recipe{Tokens: d.tokens[:end], Runs: runs(p.Tokens, 0, end), Depth: make([]uint16, end), RoPE: d.lv.probed.RoPE, Layout: &d.lv.probed.Layout,
		Extra: d.byDeviation(), Retention: d.req.Policy.Retention, Keep: make([]bool, end), Following: d.tokens[end:],
		Attended: d.attended(p.Plan), Displaced: make([]bool, end)}
	for i := range r.Depth {
		r.Keep[i] = p.Tokens[i].Reason == matcher.Critical
		if p.Tokens[i].Reason.Recomputed() {
			r.Depth[i] = uint16(len(d.lv.probed.Layout.Layers))
		}
	}
	r.Passage, r.Sample = passages(p.Plan, end)
	for _, s := range p.Displaced {
		for i := s.From; i < min(s.To, end); i++ {
			r.Displaced[i] = true
		}
	}
	for _, ref := range refs {
		r.Refs = append(r.Refs, ref.State)
	}
	return r
}

// passages numbers the passages of the first end tokens from 1, and names their samples.
func passages(p *matcher.Plan, end int) (passage []uint16, sample []bool) {
	passage, sample = make([]uint16, end), make([]bool, end)
	for k, s := range p.Passages {
		for i := s.From; i < min(s.To, end); i++ {
			passage[i] = uint16(k + 1)
			sample[i] = p.Tokens[i].Reason == matcher.Sample
		}
	}
	return passage, sample
}

// work is the share of a cold prefill's token-layers that is computed, the forwarded
// request's part included.
func (d *decision) work(done bridge.Filled, reply bridge.AgentReply) float64 {
	return (float64(reply.Keys)/float64(max(1, reply.Layers)) + float64(len(d.tokens)-done.Tokens)) / float64(len(d.tokens))
}
