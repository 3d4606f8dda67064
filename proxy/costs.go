package proxy

import (
	"math"
	"sync"
	"time"

	"github.com/semsharekv/semsharekv/bridge"
	"github.com/semsharekv/semsharekv/matcher"
)

// costs is the cost model of the backend, learnt from what it is seen to take.
type costs struct {
	mu    sync.Mutex
	token line // every request teaches it
	prices
	first prices    // what was expected before anything was seen
	aged  time.Time // when the prices were last taken back towards those
	now   func() time.Time
}

// prices are what sharing costs. Almost only requests that are shared, or looked up, teach
// them: once they are too high, nothing is shared and nothing more is learnt. So a slow
// observation, which may only have waited for other requests, counts for at most maxSlower
// times what was expected at first, and what was learnt fades (halfLife).
type prices struct {
	stage, restore line
	match          line // finding out tokens, look-up, alignment, by the prompt's length
	short          [matcher.ShortBatches]float64
	agent          float64 // price of a token in the agent, in units of its prefill
	agentFixed     float64 // ms of a recipe, however few tokens it computes
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
	// agentFixedMS is what a recipe takes on a CPU besides what it computes.
	agentFixedMS = 1
	// maxSlower bounds what something slow can teach: as many times what was expected.
	maxSlower = 4
	// halfLife is how long it takes until half of what the prices were found to be off by
	// is forgotten.
	halfLife = time.Hour
	// matchMS and matchTokenMS are what it takes to find out that nothing is similar.
	matchMS, matchTokenMS = 1, 0.004
)

// shortBatches is how much more a token costs in short batches where nothing is
// measured: what llama-server takes on a CPU, where batches of 64 and more
// have faster attention. The longest that are learnt are of 256 tokens.
var shortBatches = [matcher.ShortBatches]float64{5, 4, 3.3, 2.9, 2.6, 2.6, 1.6, 1.3, 1.1}

// newCosts starts from what the probe measured and from the size of a token's KV.
func newCosts(p *bridge.Probed, bytesPerToken int64) *costs {
	long, took := p.Longest(), p.AgentTook
	tokenMS := long.PerToken() / (1 + positionGrowth/1000*(float64(long.At)+float64(long.N)/2))
	c := &costs{prices: prices{agent: agentPrice, agentFixed: agentFixedMS}, now: time.Now}
	if all := tokenMS * float64(took.Computed); took.N > 0 {
		c.agentFixed = max(agentFixedMS, took.Recompute-agentPrice*all)
	} else if all > 0 && took.Recompute > 0 {
		c.agent = min(agentPrice, took.Recompute/all) // with kernels of its own it takes a fraction
	}
	c.token.prior(tokenMS, tokenMS*positionGrowth/1000)
	m := matcher.Costs{}
	m.Token, m.TokenPos = c.token.fit()
	c.short = shortFactors(p.Readings, m)
	copyMS := float64(bytesPerToken) / copyBytesPerMS
	c.stage.prior(stageMS, 3*copyMS)
	c.match.prior(matchMS, matchTokenMS)
	fixed, each := float64(restoreMS), 2*copyMS
	if took.N > 0 {
		fixed = min(fixed, took.Rest)
		each = (took.Rest - fixed) / float64(took.N)
	}
	c.restore.prior(fixed, each)
	c.first, c.aged = c.prices, c.now()
	return c
}

// shortFactors returns how much more a token costs in a short batch of each octave: 1 at the
// longest length that was read, and between two lengths read a constant factor an octave.
func shortFactors(readings []bridge.Reading, m matcher.Costs) [matcher.ShortBatches]float64 {
	out := shortBatches
	if len(readings) < 2 {
		return out
	}
	var read [matcher.ShortBatches + 1]float64
	longest := 0
	for _, r := range readings {
		if long := m.Long(r.At, r.At+r.N); long > 0 && r.MS > 0 {
			k := min(matcher.Octave(r.N), matcher.ShortBatches)
			read[k] = r.MS / long
			longest = max(longest, k)
		}
	}
	last := -1
	for k := range longest + 1 {
		if read[k] == 0 {
			continue
		}
		for i := last + 1; i < k && last >= 0; i++ {
			out[i] = read[last] * math.Pow(read[k]/read[last], float64(i-last)/float64(k-last))
		}
		if k < len(out) {
			out[k] = read[k]
		}
		last = k
	}
	return out
}

// model is the matcher's view of the costs as known now.
func (c *costs) model() matcher.Costs {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age()
	m := matcher.Costs{Short: c.short}
	m.Token, m.TokenPos = c.token.fit()
	m.Stage, m.StagePos = c.stage.fit()
	m.Restore, m.RestorePos = c.restore.fit()
	m.Agent, m.AgentFixed = c.agent, c.agentFixed
	return m
}

// age takes the prices back towards what was expected first, by the time that went by.
func (c *costs) age() {
	now := c.now()
	fade := 1 - math.Exp2(-float64(now.Sub(c.aged))/float64(halfLife))
	c.aged = now
	c.stage.mix(c.first.stage, fade)
	c.restore.mix(c.first.restore, fade)
	c.match.mix(c.first.match, fade)
	for k, first := range c.first.short {
		c.short[k] += fade * (first - c.short[k])
	}
	c.agent += fade * (c.first.agent - c.agent)
	c.agentFixed += fade * (c.first.agentFixed - c.agentFixed)
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
	k := matcher.Octave(n)
	f := &c.short[k]
	*f += (1 - decayWeight) * 3 * (min(ms/long, maxSlower*c.first.short[k]) - *f)
}

// filled learns from the stages of a fill: what is not prefill is the stage's.
func (c *costs) filled(f bridge.Filled) {
	for i, s := range f.Steps {
		if s.At == 0 {
			continue // nothing was composed or restored
		}
		ms := milliseconds(s.Took)
		if i == len(f.Steps)-1 {
			c.learn(&c.restore, &c.first.restore, s.At, ms)
			continue
		}
		c.learn(&c.stage, &c.first.stage, s.At, max(0, ms-s.Prefill.PromptMS))
		c.prefilled(s.At, s.Prefill.PromptN, s.Prefill.PromptMS)
	}
}

// learn adds an observation to a price that is a line.
func (c *costs) learn(l, first *line, at int, ms float64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.add(float64(at), min(ms, maxSlower*first.at(at)))
}

// cooked learns from a recipe that was expected to compute for want ms at the price of a
// prefill. The time that it waited in the server is not in what the agent says.
//
// The error is split between the fixed cost and the price in proportion to their parts of what
// was expected. A line through the recipes would not do: most compute about the same number of
// tokens, which says nothing about its slope.
func (c *costs) cooked(want float64, done bridge.Filled, reply bridge.AgentReply) {
	c.learn(&c.restore, &c.first.restore, done.Tokens, milliseconds(done.Compose)+reply.Restore)
	got := reply.Recompute
	if want <= 0 || got <= 0 {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	expected := c.agentFixed + c.agent*want
	off := (1 - decayWeight) * (min(maxSlower, got/expected) - 1)
	blame := c.agentFixed / expected
	c.agentFixed *= 1 + off*blame
	c.agent *= 1 + off*(1-blame)
}

// matched learns from what it took to look for something similar to a prompt of n tokens.
func (c *costs) matched(n int, ms float64) { c.learn(&c.match, &c.first.match, n, ms) }

// least is what sharing a prompt of n tokens takes however little of it is computed, in ms.
func (c *costs) least(n int, agent bool) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.age()
	ms := c.match.at(n) + c.restore.at(n)
	if agent {
		ms += c.agentFixed
	}
	return ms
}
