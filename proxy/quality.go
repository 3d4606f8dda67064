package proxy

import (
	"math"
	"slices"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// usual is the policy that calibrations are made with.
var usual = configs.Default().Defaults

// PlanAsUsual has the agent's plans made as for calibrations: by the defaults.
func PlanAsUsual(p *configs.Policy) {
	p.Critical, p.Unrepaired = usual.Critical, usual.Unrepaired
	p.AgentFollowers, p.CriticalFollowers, p.Seam = usual.AgentFollowers, usual.CriticalFollowers, usual.Seam
}

// plansLess reports whether the policy has the agent compute less in some respect than the
// plans of calibrations: what leaving out more of it costs was not measured.
func plansLess(p *configs.Policy) bool {
	missing := func(kind string) bool { return !slices.Contains(p.Critical, kind) }
	return p.Unrepaired == configs.UnrepairedAccept || slices.ContainsFunc(usual.Critical, missing) ||
		p.AgentFollowers < usual.AgentFollowers || p.CriticalFollowers < usual.CriticalFollowers || p.Seam < usual.Seam
}

// chooseLevel is what the request's quality target asks for, or nil where the policy's
// shares decide.
func (d *decision) chooseLevel() *Level {
	if d.trial != nil && d.trial.Level != nil {
		return d.trial.Level
	}
	if c := d.lv.calibration.Load(); c != nil && d.req.Policy.Quality.KL > 0 {
		return c.Level(d.req.Policy.Quality.KL, d.displaced())
	}
	return nil
}

// fewDisplaced is the share of a prompt's tokens below which displaced ones are not worth a
// draft: it costs the same for few, and edited documents, a passage of which moved, lose
// little.
const fewDisplaced = 1. / 3

// MuchDisplaced tells the kind of a prompt of which the share stands in another context
// than in its references.
func MuchDisplaced(share float64) bool { return share >= fewDisplaced }

func (d *decision) displaced() bool { return MuchDisplaced(d.report.Displaced) }

// attended is the share of the plan's displaced tokens that are computed because an
// answer attends to them; 0 where few are displaced, or fewer would be computed than are
// drafted to find them.
func (d *decision) attended(p *matcher.Plan) float64 {
	share := d.req.Policy.AgentAttended
	if d.level != nil {
		share = d.level.Attended
	}
	if !d.displaced() || share*p.DisplacedShare()*float64(len(p.Tokens)) < bridge.DraftTokens {
		return 0
	}
	return share
}

// extra is what the agent is expected to compute of the plan's first end tokens besides
// what it names, in ms at the price of a prefill.
func (d *decision) extra(p *matcher.Plan, end int, costs matcher.Costs) float64 {
	return d.deviating(end, costs) + d.looking(p, end, costs) + d.drafting(p, end, costs)
}

// looking is the cost of the displaced tokens that are computed because an answer attends to
// them.
func (d *decision) looking(p *matcher.Plan, end int, costs matcher.Costs) float64 {
	share := d.attended(p)
	if share == 0 {
		return 0
	}
	all := 0.0
	for _, s := range p.Displaced {
		if s.From < end {
			all += costs.Long(s.From, min(s.To, end))
		}
	}
	return share * all
}

// drafts reports whether the agent is to find out what an answer attends to.
func (d *decision) drafts(p *matcher.Plan) bool {
	return d.req.Policy.Retention < 1 || d.attended(p) > 0
}

// drafting is the cost of an answer's first tokens, each of which takes what a batch of one
// takes the server, and of those of the prompt that are left to the forwarded request.
func (d *decision) drafting(p *matcher.Plan, end int, costs matcher.Costs) float64 {
	if !d.drafts(p) {
		return 0
	}
	n := len(p.Tokens)
	return costs.Long(end, n) + bridge.DraftTokens*costs.Prefill(n-1, n)/costs.Agent
}

// deviating is the cost of the tokens that are computed because they deviate.
func (d *decision) deviating(end int, costs matcher.Costs) float64 {
	if l := d.level; l != nil {
		return max(0, l.Work-d.planWork(l)) * costs.Prefill(0, end)
	}
	pol := &d.req.Policy
	if pol.AgentShareFirst == 0 {
		return 0
	}
	// All tokens go through the first layer, then a falling share.
	layers := float64(len(d.lv.probed.Layout.Layers))
	return (1/layers + (pol.AgentShareFirst+pol.AgentShareLast)/2) * costs.Prefill(0, end)
}

// planWork is the work that the level's plan was on average when the model was calibrated.
func (d *decision) planWork(l *Level) float64 {
	if c := d.lv.calibration.Load(); c != nil {
		return c.planWork(l, d.displaced())
	}
	return 0
}

// applyLeftOut takes out of the request's policy what the level leaves out of the default, and
// reports whether that was anything. A policy that plans less by itself keeps what it plans.
func (d *decision) applyLeftOut() bool {
	l := d.level
	if l == nil || !d.agent() || l.LeftOut == (LeftOut{}) {
		return false
	}
	pol := &d.req.Policy
	if plansLess(pol) {
		return false
	}
	pol.Seam -= int(math.Round(l.Seams * float64(usual.Seam)))
	if l.Followers {
		pol.AgentFollowers -= usual.AgentFollowers
	}
	return true
}

// byDeviation is what the agent computes because it deviates: the level's choice, or the policy's.
func (d *decision) byDeviation() bridge.Deviating {
	if l := d.level; l != nil {
		return bridge.Deviating{ShareFirst: float32(l.ShareFirst), ShareLast: float32(l.ShareLast), MinDeviation: float32(l.MinDeviation)}
	}
	pol := &d.req.Policy
	return bridge.Deviating{ShareFirst: float32(pol.AgentShareFirst), ShareLast: float32(pol.AgentShareLast)}
}
