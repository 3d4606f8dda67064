package proxy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/configs"
	"github.com/semsharekv/semsharekv/matcher"
)

// Calibration says, for one model, what computing more or fewer tokens costs and buys:
// it turns a quality target into what a plan may leave out or, where the plan alone does
// not meet it, into the share of displaced tokens, or the deviation from which on further
// tokens, are computed. How many of a request's tokens that is, its own passages and
// deviations decide.
type Calibration struct {
	Model   string    `json:"model"` // key of model and index
	Created time.Time `json:"created"`
	Pairs   int       `json:"pairs"` // on which each level was measured
	// Levels go from the least to the most computed.
	Levels []Level `json:"levels"`
}

// LeftOut is what a plan would compute and is taken over. Critical tokens, what follows
// them, and what has no counterpart are always computed.
type LeftOut struct {
	// Seams is the share of every seam, from its end.
	Seams float64 `json:"seams_left_out,omitempty"`
	// Followers are those of tokens without a counterpart.
	Followers bool `json:"followers_left_out,omitempty"`
	// Near counterparts.
	Near bool `json:"accept_near,omitempty"`
}

// Level is what the agent computes, and what came of it. The zero value is what the
// plan names.
type Level struct {
	LeftOut
	// MinDeviation is the squared distance of a token's values in the second layer,
	// in units of the mean square of all, from which on it is computed.
	MinDeviation float64 `json:"min_deviation"`
	// MostFirst and MostLast bound the share of tokens in the third and last layer;
	// with 0 none is chosen by deviation.
	MostFirst float64 `json:"most_first"`
	MostLast  float64 `json:"most_last"`
	// Attended is the policy's agent_attended.
	Attended float64 `json:"attended,omitempty"`
	KL       float64 `json:"kl"`       // mean over the pairs, nats
	KLError  float64 `json:"kl_error"` // standard error of that mean
	Work     float64 `json:"work"`     // mean share of a cold prefill's token-layers
}

// certainty is by how many standard errors pairs not seen may be worse than those
// measured: with two, one model in forty were the losses normal. They are not, and the
// cheapest of several levels is the luckiest.
const certainty = 2

// expected is the KL to reckon with.
func (l *Level) expected() float64 { return l.KL + certainty*l.KLError }

// Level returns the cheapest level that meets a target in nats, or, where none
// does, the best.
func (c *Calibration) Level(target float64) *Level {
	best := &c.Levels[0]
	for i := range c.Levels {
		l := &c.Levels[i]
		if l.expected() <= target {
			return l
		}
		if l.expected() < best.expected() {
			best = l
		}
	}
	return best
}

// calibrationPath is the file of a model in the slot directory.
func (sh *Sharer) calibrationPath(key string) string {
	return filepath.Join(sh.cfg.Backend.SlotDir, "calibration-"+key+".json")
}

// loadCalibration reads that of the model; none is no fault.
func (sh *Sharer) loadCalibration(lv *live) {
	path := sh.calibrationPath(lv.key)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var c Calibration
	if err == nil {
		err = json.Unmarshal(b, &c)
	}
	if err == nil {
		err = c.check(lv.key)
	}
	if err != nil {
		sh.log.Warn().Err(err).Str("file", path).Msg("the calibration is not used; make it anew with semsharekv calibrate")
		return
	}
	lv.calibration.Store(&c)
}

func (c *Calibration) check(key string) error {
	if c.Model != key {
		return fmt.Errorf("it is of model key %q, want %q", c.Model, key)
	}
	if len(c.Levels) == 0 {
		return errors.New("it has no levels")
	}
	for i, l := range c.Levels {
		if !(l.KL >= 0 && l.KLError >= 0 && l.Work >= 0 && l.MinDeviation >= 0 && l.Seams >= 0 && l.Seams <= 1 && l.MostLast >= 0 && l.MostLast <= l.MostFirst && l.MostFirst <= 1 && l.Attended >= 0 && l.Attended <= 1) {
			return fmt.Errorf("level %d has figures out of their range: %+v", i, l)
		}
	}
	return nil
}

// Calibrate stores what was measured of the backend's model and goes by it.
func (sh *Sharer) Calibrate(c *Calibration) error {
	lv := sh.live.Load()
	if lv == nil {
		return sh.Ready()
	}
	c.Model = lv.key
	if err := c.check(lv.key); err != nil {
		return fmt.Errorf("calibration: %w", err)
	}
	b, err := json.MarshalIndent(c, "", " ")
	if err != nil {
		return err
	}
	path := sh.calibrationPath(lv.key)
	if err := os.WriteFile(path+".new", b, 0o600); err != nil {
		return err
	}
	if err := os.Rename(path+".new", path); err != nil {
		return err
	}
	lv.calibration.Store(c)
	return nil
}

// warnUncalibrated says that a quality target has nothing to go by.
func (sh *Sharer) warnUncalibrated(lv *live) {
	wanted := sh.cfg.Defaults.Quality.KL > 0
	for i := range sh.cfg.Routes {
		wanted = wanted || sh.cfg.Routes[i].Quality.KL > 0
	}
	if wanted && lv.agent() && lv.calibration.Load() == nil {
		sh.log.Warn().Msg("quality.kl is set, but the model is not calibrated: agent_share_first and agent_share_last decide until semsharekv calibrate was run")
	}
}

// level is what the request's quality target asks for, or nil where the policy's
// shares decide.
func (d *Decision) level() *Level {
	if d.trial != nil && d.trial.Level != nil {
		return d.trial.Level
	}
	if c := d.lv.calibration.Load(); c != nil && d.g.Policy.Quality.KL > 0 {
		return c.Level(d.g.Policy.Quality.KL)
	}
	return nil
}

// fewDisplaced is the share of a prompt's tokens below which displaced ones are not worth a
// draft: it costs the same for few, and edited documents, a passage of which moved, lose
// little.
const fewDisplaced = 1. / 3

// attended is the share of the plan's displaced tokens that are computed because an
// answer attends to them; 0 where few are displaced, or fewer would be computed than are
// drafted to find them.
func (d *Decision) attended(p *matcher.Plan) float64 {
	share := d.g.Policy.AgentAttended
	if l := d.level(); l != nil {
		share = l.Attended
	}
	displaced := 0.0
	for _, s := range p.Displaced {
		displaced += float64(s.To - s.From)
	}
	if share*displaced < bridge.DraftTokens || displaced < fewDisplaced*float64(len(p.Tokens)) {
		return 0
	}
	return share
}

// extra is what the agent is expected to compute of the plan's first end tokens besides
// what it names, in ms at the price of a prefill.
func (d *Decision) extra(p *matcher.Plan, end int, costs matcher.Costs) float64 {
	return d.deviating(end, costs) + d.looking(p, end, costs) + d.drafting(p, end, costs)
}

// looking is the part that an answer chooses by its attention.
func (d *Decision) looking(p *matcher.Plan, end int, costs matcher.Costs) float64 {
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
func (d *Decision) drafts(p *matcher.Plan) bool {
	return d.g.Policy.Retention < 1 || d.attended(p) > 0
}

// drafting is the cost of an answer's first tokens, each of which takes what a batch of one
// takes, and of those of the prompt that are left to the forwarded request.
func (d *Decision) drafting(p *matcher.Plan, end int, costs matcher.Costs) float64 {
	if !d.drafts(p) {
		return 0
	}
	n := len(p.Tokens)
	return costs.Long(end, n) + bridge.DraftTokens*costs.Prefill(n-1, n)
}

// deviating is the part that deviation chooses.
func (d *Decision) deviating(end int, costs matcher.Costs) float64 {
	if l := d.level(); l != nil {
		return max(0, l.Work-d.planWork(l)) * costs.Prefill(0, end)
	}
	pol := &d.g.Policy
	if pol.AgentShareFirst == 0 {
		return 0
	}
	// All tokens go through the first layer, then a falling share.
	layers := float64(len(d.lv.probed.Layout.Layers))
	return (1/layers + (pol.AgentShareFirst+pol.AgentShareLast)/2) * costs.Prefill(0, end)
}

// planWork is the work that the level's plan was on average when the model was calibrated.
func (d *Decision) planWork(l *Level) float64 {
	if c := d.lv.calibration.Load(); c != nil {
		for _, m := range c.Levels {
			if m.MostFirst == 0 && m.LeftOut == l.LeftOut && m.Attended == l.Attended {
				return m.Work
			}
		}
	}
	return 0
}

// lean takes out of the request's policy what the level leaves out.
func (d *Decision) lean() {
	l := d.level()
	if l == nil || !d.agent() {
		return
	}
	pol := &d.g.Policy
	pol.Seam -= int(math.Round(l.Seams * float64(pol.Seam)))
	if l.Followers {
		pol.AgentFollowers = 0
	}
	if l.Near {
		pol.Unrepaired = configs.UnrepairedAccept
	}
}

// levelled is the recipe with the level's choice by deviation.
func (d *Decision) levelled(r *bridge.Recipe) *bridge.Recipe {
	if l := d.level(); l != nil {
		r.Extra = bridge.Extra{First: float32(l.MostFirst), Last: float32(l.MostLast), MinDeviation: float32(l.MinDeviation)}
	}
	return r
}
