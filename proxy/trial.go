package proxy

import (
	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// Trial changes how requests are shared, to measure what a part of sharing is
// worth or what other settings would give. A shared request under a trial is
// carried out even where it takes longer than a cold one.
type Trial struct {
	// Policy changes the route's policy.
	Policy func(*configs.Policy)
	// Plan changes what the agent is to take over or compute: the scheduled
	// plan without the end that is left to the forwarded request. Tokens that
	// are not computed and have no source must be holes.
	Plan func([]matcher.PlanToken)
	// Unrotated leaves keys as they are in the reference (agent).
	Unrotated bool
	// Level is what the agent chooses by deviation; nil leaves that to the policy.
	Level *Level
	// Slot fills slots through saved states though there is an agent.
	Slot bool
}

// Try has every request that follows go by t; nil ends it.
func (sh *Sharer) Try(t *Trial) { sh.trial.Store(t) }

// Keep says whether prompts that are through from now on may become references; at first
// they may. One that is tried in several ways must not: each way after the first would find
// the prompt itself.
func (sh *Sharer) Keep(on bool) { sh.keepNone.Store(!on) }

// underTrial takes the trial over for one request.
func (d *decision) underTrial() {
	d.trial = d.sh.trial.Load()
	if d.trial != nil && d.trial.Policy != nil {
		d.trial.Policy(&d.req.Policy)
	}
}

// agent reports whether this request's slot is filled by the agent.
func (d *decision) agent() bool { return d.lv.agent() && (d.trial == nil || !d.trial.Slot) }

// tryPlan has the trial change the plan of which the agent carries out the first
// end tokens.
func (d *decision) tryPlan(p *matcher.Plan, end int) {
	if d.trial != nil && d.trial.Plan != nil {
		d.trial.Plan(p.Tokens[:end])
	}
}

// trialRecipe is the recipe as the trial wants it.
func (d *decision) trialRecipe(r *bridge.Recipe) *bridge.Recipe {
	if d.trial != nil && d.trial.Unrotated {
		for i := range r.Runs {
			r.Runs[i].Delta = 0
		}
	}
	return r
}
