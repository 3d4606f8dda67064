package proxy

import (
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Calibration says, for one model, what computing more or fewer tokens costs and buys:
// it turns a quality target into what a plan may leave out or, where the plan alone does
// not meet it, into the share of displaced tokens, or the deviation from which on further
// tokens, are computed. How many of a request's tokens that is, its own passages and
// deviations decide.
type Calibration struct {
	Model   string    `json:"model"` // live.key
	Created time.Time `json:"created"`
	// Kinds of prompt lose in different ways, so each has a level of its own.
	Kinds []Kind `json:"kinds"`
}

// Kind is what was measured of one kind of prompt.
type Kind struct {
	// Displaced are prompts a third of which and more stands in another context than in
	// the reference: documents in another order, passages found by a search.
	Displaced bool `json:"displaced"`
	Pairs     int  `json:"pairs"` // on which each level was measured, at least LeastPairs
	// Levels go from the least to the most computed.
	Levels []Level `json:"levels"`
}

// LeftOut is what a plan would compute by default and is taken over. Tokens that differ,
// what follows critical ones, and what a route asks for beyond the default are always
// computed.
type LeftOut struct {
	// Seams is the share of every seam, from its end.
	Seams float64 `json:"seams_left_out,omitempty"`
	// Followers are those of tokens without a counterpart.
	Followers bool `json:"followers_left_out,omitempty"`
}

// Level is what the agent computes, and what came of it. The zero value is what the
// plan names.
type Level struct {
	LeftOut
	// MinDeviation is the squared distance of a token's values in the second layer,
	// in units of the mean square of all, from which on it is computed.
	MinDeviation float64 `json:"min_deviation"`
	// ShareFirst and ShareLast bound the share of tokens in the third and last layer;
	// with 0 none is chosen by deviation.
	ShareFirst float64 `json:"most_first"`
	ShareLast  float64 `json:"most_last"`
	// Attended is the policy's agent_attended.
	Attended float64 `json:"attended,omitempty"`
	KL       float64 `json:"kl"`       // mean over the pairs, nats
	KLError  float64 `json:"kl_error"` // standard error of that mean
	Work     float64 `json:"work"`     // mean share of a cold prefill's token-layers
}

// certainty is how many standard errors are added to a measured mean KL before it is compared
// with a target. At 2, if losses were normal, the true mean would lie above it (Student's t)
// for 1 model in 25 (nine pairs) to 1 in 14 (four pairs, LeastPairs). In practice it is more
// often: losses are not normal, and choosing the cheapest passing level favours lucky ones.
const certainty = 2

// LeastPairs is how many pairs of a kind tell something of it: with fewer the standard
// error is itself too uncertain.
const LeastPairs = 4

// Level returns the level of a kind of prompt that meets a target in nats at the least
// work; where none does, the one that is expected to lose least. It is nil where the kind
// was not measured.
func (c *Calibration) Level(target float64, displaced bool) *Level {
	k := c.kind(displaced)
	if k == nil {
		return nil
	}
	best := &k.Levels[0]
	for i := range k.Levels { // from the least to the most computed
		l := &k.Levels[i]
		if l.expected() <= target {
			return l
		}
		if l.expected() < best.expected() {
			best = l
		}
	}
	return best
}

func (c *Calibration) kind(displaced bool) *Kind {
	for i := range c.Kinds {
		if c.Kinds[i].Displaced == displaced {
			return &c.Kinds[i]
		}
	}
	return nil
}

// expected is the mean KL to reckon with.
func (l *Level) expected() float64 { return l.KL + certainty*l.KLError }

// planWork is the work that a level's plan was on average in that kind of prompt.
func (c *Calibration) planWork(l *Level, displaced bool) float64 {
	if k := c.kind(displaced); k != nil {
		for _, m := range k.Levels {
			if m.ShareFirst == 0 && m.LeftOut == l.LeftOut && m.Attended == l.Attended {
				return m.Work
			}
		}
	}
	return 0
}

func (c *Calibration) check(key string) error {
	if c.Model != key {
		return fmt.Errorf("it is of model key %q, want %q", c.Model, key)
	}
	if len(c.Kinds) == 0 {
		return errors.New("it has no kinds of prompt")
	}
	for i, k := range c.Kinds {
		if i > 0 && k.Displaced == c.Kinds[0].Displaced || i > 1 {
			return fmt.Errorf("it has a kind of prompt (displaced: %v) twice", k.Displaced)
		}
		if len(k.Levels) == 0 || k.Pairs < LeastPairs {
			return fmt.Errorf("a kind of prompt (displaced: %v) has %d levels of %d pairs, want some, of at least %d", k.Displaced, len(k.Levels), k.Pairs, LeastPairs)
		}
		for j, l := range k.Levels {
			if !l.sane() {
				return fmt.Errorf("level %d has figures out of their range: %+v", j, l)
			}
		}
	}
	return nil
}

func (l *Level) sane() bool {
	return l.KL >= 0 && l.KLError >= 0 && l.Work >= 0 && l.MinDeviation >= 0 && l.Seams >= 0 && l.Seams <= 1 &&
		l.ShareLast >= 0 && l.ShareLast <= l.ShareFirst && l.ShareFirst <= 1 && l.Attended >= 0 && l.Attended <= 1
}

// shipped are calibrations of models that we measured, by calibrate on the shipped pairs.
//
//go:embed calibrations/*.json
var shipped embed.FS

// shippedCalibration is that of the model key, or nil. What is shipped is valid: tested.
func shippedCalibration(key string) *Calibration {
	files, _ := shipped.ReadDir("calibrations")
	for _, f := range files {
		if c, err := parseCalibration(shipped.ReadFile("calibrations/" + f.Name())); err == nil && c.Model == key {
			return c
		}
	}
	return nil
}

// parseCalibration takes what reading a file returned.
func parseCalibration(file []byte, err error) (*Calibration, error) {
	if err != nil {
		return nil, err
	}
	var c Calibration
	return &c, json.Unmarshal(file, &c)
}

// calibrationPath is the file of a model in the slot directory.
func (sh *Sharer) calibrationPath(key string) string {
	return filepath.Join(sh.cfg.Backend.SlotDir, "calibration-"+key+".json")
}

// loadCalibration reads that of the model: the slot directory's, or one that is shipped.
// None is no fault.
func (sh *Sharer) loadCalibration(lv *live) {
	path := sh.calibrationPath(lv.key)
	c, err := parseCalibration(os.ReadFile(path))
	if err == nil {
		err = c.check(lv.key)
	}
	if err != nil {
		c = shippedCalibration(lv.key)
		if !errors.Is(err, fs.ErrNotExist) {
			sh.log.Warn().Err(err).Str("file", path).Msg("the calibration is not used; make it anew with semsharekv calibrate")
		}
	}
	lv.calibration.Store(c)
}

// Calibrated reports whether quality.kl has something to go by.
func (sh *Sharer) Calibrated() bool {
	lv := sh.live.Load()
	return lv != nil && lv.calibrated()
}

func (lv *live) calibrated() bool { return lv.agent() && lv.calibration.Load() != nil }

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
	if err := writeWhole(sh.calibrationPath(lv.key), b); err != nil {
		return err
	}
	lv.calibration.Store(c)
	sh.tellHow(lv)
	return nil
}
