package proxy

import (
	"sync"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// costs is the cost model of the backend, learnt from what it is seen to take.
type costs struct {
	mu                    sync.Mutex
	token, stage, restore line
	short                 [matcher.ShortBatches]float64
	agent                 float64 // price of a token in the agent, in units of its prefill
}

// Before anything is measured: what one copy of a state's bytes takes, and the
// fixed part of a restore and of a stage, in ms.
const (
	copyBytesPerMS = 1.5e6
	restoreMS      = 4
	stageMS        = 12
	// positionGrowth is by how much of itself the price of a token grows over a
	// thousand positions, for attention.
	positionGrowth = 0.1
	// agentPrice: a batch of scattered tokens attends to as much as one in a row.
	agentPrice = 1.1
	// maxAgentPrice bounds what one slow recipe can teach.
	maxAgentPrice = 4
)

// shortBatches is how much more a token costs in short batches before anything
// is measured: what llama-server takes on a CPU, where batches of 64 and more
// have faster attention. The longest that are learnt are of 256 tokens.
var shortBatches = [matcher.ShortBatches]float64{5, 4, 3.3, 2.9, 2.6, 2.6, 1.6, 1.3, 1.1}

// newCosts starts from the probe's price of a token and from the size of its KV.
func newCosts(tokenMS float64, bytesPerToken int64) *costs {
	c := &costs{short: shortBatches, agent: agentPrice}
	copyMS := float64(bytesPerToken) / copyBytesPerMS
	c.token.prior(tokenMS, tokenMS*positionGrowth/1000)
	c.restore.prior(restoreMS, 2*copyMS)
	c.stage.prior(stageMS, 3*copyMS)
	return c
}

// model is the matcher's view of the costs as known now.
func (c *costs) model() matcher.Costs {
	c.mu.Lock()
	defer c.mu.Unlock()
	m := matcher.Costs{Short: c.short}
	m.Token, m.TokenPos = c.token.fit()
	m.Stage, m.StagePos = c.stage.fit()
	m.Restore, m.RestorePos = c.restore.fit()
	m.Agent = c.agent
	return m
}

// longPrefill is the shortest prefill that tells the price of a token in a long
// batch.
const longPrefill = 1 << matcher.ShortBatches

// prefilled learns from a prefill of n tokens from position at on.
func (c *costs) prefilled(at, n int, ms float64) {
	if n <= 0 || ms <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n >= longPrefill {
		c.token.add(float64(at)+float64(n)/2, ms/float64(n))
		return
	}
	var m matcher.Costs
	m.Token, m.TokenPos = c.token.fit()
	long := m.Long(at, at+n)
	if long <= 0 {
		return // the price of a token is not known yet
	}
	f := &c.short[matcher.Octave(n)]
	*f += (1 - forget) * 3 * (ms/long - *f)
}

// filled learns from the stages of a fill: what is not prefill is the stage's.
func (c *costs) filled(f bridge.Filled) {
	for i, s := range f.Steps {
		if s.At == 0 {
			continue // nothing was composed or restored
		}
		ms := float64(s.Took.Microseconds()) / 1000
		if i == len(f.Steps)-1 {
			c.learn(&c.restore, s.At, ms)
			continue
		}
		c.learn(&c.stage, s.At, max(0, ms-s.Prefill.PromptMS))
		c.prefilled(s.At, s.Prefill.PromptN, s.Prefill.PromptMS)
	}
}

func (c *costs) learn(l *line, at int, ms float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.add(float64(at), ms)
}

// cooked learns from a recipe of n tokens that was expected to compute for want ms
// at the price of a prefill, computed for got ms, and took ms in all.
func (c *costs) cooked(n int, want, got, ms float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.restore.add(float64(n), max(0, ms-got))
	if want > 0 && got > 0 {
		c.agent += (1 - forget) * (min(maxAgentPrice, got/want) - c.agent)
	}
}

// line is a straight line through observations, the older ones counting less:
// weighted least squares, kept as moments.
type line struct{ w, x, y, xx, xy float64 }

const (
	forget      = 0.9  // weight of what was known at each new observation
	priorWeight = 0.3  // of each of the two points that stand for the prior
	priorSpan   = 4000 // positions between them
)

// prior starts the line at a + b*x.
func (l *line) prior(a, b float64) {
	l.point(0, a, priorWeight)
	l.point(priorSpan, a+b*priorSpan, priorWeight)
}

func (l *line) add(x, y float64) {
	for _, m := range []*float64{&l.w, &l.x, &l.y, &l.xx, &l.xy} {
		*m *= forget
	}
	l.point(x, y, 1)
}

func (l *line) point(x, y, w float64) {
	l.w += w
	l.x += w * x
	l.y += w * y
	l.xx += w * x * x
	l.xy += w * x * y
}

// fit returns a and b of y = a + b*x, neither negative. Observations all in one
// place say nothing of the slope, which then is shared between both.
func (l *line) fit() (a, b float64) {
	const ridge = 1e5 // square positions: keeps the slope tame
	b = max(0, (l.w*l.xy-l.x*l.y)/(l.w*l.xx-l.x*l.x+ridge))
	a = (l.y - b*l.x) / l.w
	if a < 0 {
		return 0, l.xy / l.xx
	}
	return a, b
}
